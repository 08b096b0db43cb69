#include "base/check.h"
#include "proto/prefetch_list.h"

// What decodes is what encodes, whatever stood in the text.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace hydrant;
  auto list = proto::decode_prefetch_list({reinterpret_cast<const char*>(data), size});
  if (!list) return 0;
  auto again = proto::decode_prefetch_list(proto::encode(*list));
  HYDRANT_CHECK(again && *again == *list, "a list changes on its way");
  return 0;
}
