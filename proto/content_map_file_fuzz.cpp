#include "base/check.h"
#include "base/digest.h"
#include "proto/content_map_file.h"

// The checksum would stop every mutation, so it is made right before the second attempt.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace hydrant;
  Bytes input{reinterpret_cast<const std::byte*>(data), size};
  (void)proto::decode_content_map(input);
  Buffer sealed = to_buffer(input);
  append(sealed, sha256(input).bytes);
  auto map = proto::decode_content_map(sealed);
  HYDRANT_CHECK(!map || proto::encode_content_map(*map) == sealed, "decoding and encoding must agree");
  return 0;
}
