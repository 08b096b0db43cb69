// Any bytes as a zTOC: an index that loads, or a refusal.
#include "base/check.h"
#include "image/soci/ztoc.h"

using namespace hydrant;
using namespace hydrant::image;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  auto made = build_ztoc_index(std::as_bytes(std::span(data, size)), {});
  if (!made) return 0;
  auto index = LayerIndex::load(made->index, {});
  HYDRANT_CHECK(index, "what is built can be loaded");
  HYDRANT_CHECK((*index)->files(), "and its files, too");
  return 0;
}
