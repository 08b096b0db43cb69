#include "proto/cachefiles_message.h"

#include <algorithm>

#include "base/check.h"

namespace hydrant::proto {
namespace {

EncodedMessage begin(MessageIds ids, Opcode opcode, size_t size) {
  EncodedMessage out;
  out.size = size;
  store_le(&out.storage[0], ids.msg_id);
  store_le(&out.storage[4], static_cast<uint32_t>(opcode));
  store_le(&out.storage[8], static_cast<uint32_t>(size));
  store_le(&out.storage[12], ids.object_id);
  return out;
}

Result<> decode_open(Cursor& cursor, Message& out) {
  auto volume_key_size = cursor.take<uint32_t>();
  auto cookie_key_size = cursor.take<uint32_t>();
  out.fd = cursor.take<int32_t>();
  out.flags = cursor.take<uint32_t>();
  Bytes volume_key = cursor.take_bytes(volume_key_size);
  Bytes cookie_key = cursor.take_bytes(cookie_key_size);
  if (!cursor.ok() || !cursor.rest().empty()) return fail(Code::kCorrupt, "OPEN message: lengths disagree");
  if (volume_key.empty() || volume_key.back() != std::byte(0))
    return fail(Code::kCorrupt, "OPEN message: the volume key has no terminator");
  out.volume_key = as_text(volume_key.first(volume_key.size() - 1));
  out.cookie_key = to_buffer(cookie_key);
  return {};
}

Result<> decode_read(Cursor& cursor, Message& out) {
  auto offset = cursor.take<uint64_t>();
  auto size = cursor.take<uint64_t>();
  if (!cursor.ok() || !cursor.rest().empty()) return fail(Code::kCorrupt, "READ message: lengths disagree");
  auto range = make_range(offset, size);
  if (!range) return fail(Code::kCorrupt, "READ message: the range overflows");
  out.range = *range;
  return {};
}

}  // namespace

size_t open_message_size(size_t volume_key_size, size_t cookie_key_size) {
  return kOpenHeaderSize + volume_key_size + 1 + cookie_key_size;
}

EncodedMessage encode_open(MessageIds ids, std::string_view volume_key, Bytes cookie_key, int fd) {
  HYDRANT_CHECK(volume_key.size() <= kVolumeKeyLimit && cookie_key.size() <= kCookieKeyLimit,
                "keys are limited when they are acquired");
  auto out = begin(ids, Opcode::kOpen, open_message_size(volume_key.size(), cookie_key.size()));
  store_le(&out.storage[16], static_cast<uint32_t>(volume_key.size() + 1));
  store_le(&out.storage[20], static_cast<uint32_t>(cookie_key.size()));
  store_le(&out.storage[24], static_cast<int32_t>(fd));
  store_le(&out.storage[28], uint32_t{0});
  auto at = std::copy_n(as_bytes(volume_key).begin(), volume_key.size(), out.storage.begin() + kOpenHeaderSize);
  *at++ = std::byte(0);
  std::copy_n(cookie_key.begin(), cookie_key.size(), at);
  return out;
}

EncodedMessage encode_close(MessageIds ids) { return begin(ids, Opcode::kClose, kMessageHeaderSize); }

EncodedMessage encode_read(MessageIds ids, ByteRange range) {
  auto out = begin(ids, Opcode::kRead, kReadMessageSize);
  store_le(&out.storage[16], range.begin);
  store_le(&out.storage[24], range.size());
  return out;
}

Result<Message> decode_message(Bytes bytes) {
  Cursor cursor(bytes);
  Message out;
  out.msg_id = cursor.take<uint32_t>();
  auto opcode = cursor.take<uint32_t>();
  auto size = cursor.take<uint32_t>();
  out.object_id = cursor.take<uint32_t>();
  if (!cursor.ok() || size != bytes.size()) return fail(Code::kCorrupt, "message: wrong length");
  out.opcode = static_cast<Opcode>(opcode);
  switch (out.opcode) {
    case Opcode::kOpen: HYDRANT_TRY_VOID(decode_open(cursor, out)); return out;
    case Opcode::kRead: HYDRANT_TRY_VOID(decode_read(cursor, out)); return out;
    case Opcode::kClose:
      if (!cursor.rest().empty()) return fail(Code::kCorrupt, "CLOSE message: it has a payload");
      return out;
  }
  return fail(Code::kUnsupported, "message: unknown opcode " + std::to_string(opcode));
}

}  // namespace hydrant::proto
