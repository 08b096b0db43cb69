#include "base/check.h"
#include "proto/handover.h"

// The header is long and mostly constant, so it is made right: the input is the number of slots and the slots.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace hydrant;
  Bytes input{reinterpret_cast<const std::byte*>(data), size};
  (void)proto::decode_handover(input);
  Buffer whole(proto::kHandoverHeader);
  proto::encode_handover_header(whole, size ? data[0] % 8 : 0);
  append(whole, input);
  auto found = proto::decode_handover(whole);
  HYDRANT_CHECK(!found || proto::decode_handover(proto::encode_handover(*found)).value() == *found,
                "decoding and encoding must agree");
  return 0;
}
