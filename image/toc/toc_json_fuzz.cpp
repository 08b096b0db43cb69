// Any JSON as a table of contents: what it makes is an index that loads, whose file table keeps its promises.
#include <cstdlib>

#include "image/toc/toc_table.h"

using namespace hydrant;
using namespace hydrant::image;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  TocTable table;
  const auto text = as_text(std::as_bytes(std::span(data, size)));
  if (!read_toc_json(text, [&](TocEntry&& entry) { return table.add(std::move(entry)); })) return 0;
  LayerIdent ident{.stored_size = 1 << 20,
                   .media_type = {},
                   .compression = Compression::kGzip,
                   .stored_end = 1 << 20,
                   .generator = {}};
  auto content = table.finish(ident, sha256(as_bytes("table")));
  if (!content) return 0;
  auto index = LayerIndex::load(encode_layer_index(*content), {});
  if (!index) std::abort();
  auto files = (*index)->files();
  if (!files || *files != content->files || (*index)->chunks() != content->chunks) std::abort();
  return 0;
}
