#include "base/check.h"
#include "proto/handed_events.h"

// As for the hand-over record: the header is made right, the input is the number of slots and the slots.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace hydrant;
  Bytes input{reinterpret_cast<const std::byte*>(data), size};
  (void)proto::decode_handed_events(input);
  Buffer whole(proto::kHandedEventsHeader);
  proto::encode_handed_events_header(whole, size ? data[0] % 8 : 0);
  append(whole, input);
  auto found = proto::decode_handed_events(whole);
  HYDRANT_CHECK(!found || proto::decode_handed_events(proto::encode_handed_events(*found)).value() == *found,
                "decoding and encoding must agree");
  return 0;
}
