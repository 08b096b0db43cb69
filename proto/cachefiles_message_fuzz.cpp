#include "base/check.h"
#include "proto/cachefiles_message.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace hydrant;
  Bytes input{reinterpret_cast<const std::byte*>(data), size};
  auto message = proto::decode_message(input);
  if (!message || message->opcode != proto::Opcode::kOpen || message->flags != 0) return 0;
  if (message->volume_key.size() > proto::kVolumeKeyLimit || message->cookie_key.size() > proto::kCookieKeyLimit)
    return 0;
  auto again =
      proto::encode_open({message->msg_id, message->object_id}, message->volume_key, message->cookie_key, message->fd);
  HYDRANT_CHECK(as_text(again.bytes()) == as_text(input), "decoding and encoding must agree");
  return 0;
}
