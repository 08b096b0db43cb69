// The messages of the control channel: OPEN, CLOSE and READ as the kernel's cachefiles lays them out (spec 6.1).
// Integers are little endian.
#pragma once

#include <array>
#include <cstdint>
#include <string>

#include "base/byte_range.h"
#include "base/bytes.h"
#include "base/error.h"

namespace hydrant::proto {

enum class Opcode : uint32_t { kOpen = 0, kClose = 1, kRead = 2 };

inline constexpr size_t kMessageHeaderSize = 16;
inline constexpr size_t kOpenHeaderSize = 32;  // message header and the fixed part of an OPEN
inline constexpr size_t kReadMessageSize = 32;
inline constexpr size_t kVolumeKeyLimit = 255;  // bytes, without the terminator
inline constexpr size_t kCookieKeyLimit = 255;
inline constexpr size_t kMessageLimit = kOpenHeaderSize + kVolumeKeyLimit + 1 + kCookieKeyLimit;
// A buffer that every message fits in.
inline constexpr size_t kMessageBufferSize = 1024;

// The object id of an object whose daemon closed its handle.
inline constexpr uint32_t kNoObjectId = 0xffffffff;

// ioctl on an object's handle that ends a READ; its argument is the msg_id, by value (spec 6.2).
inline constexpr uint32_t kReadComplete = 0x40049801;
// Ours, no kernel's: whether what is written there is hashed against leaves before it becomes present: 1 or 0. Who does
// not know it answers as to any other number.
inline constexpr uint32_t kProvesWrites = 0x00009870;

// One encoded message; no allocation.
struct EncodedMessage {
  std::array<std::byte, kMessageLimit> storage;
  size_t size = 0;

  Bytes bytes() const { return Bytes(storage).first(size); }
};

struct MessageIds {
  uint32_t msg_id = 0;
  uint32_t object_id = 0;
};

// Keys are at most the limits above; `fd` is a descriptor number of the receiving process.
EncodedMessage encode_open(MessageIds ids, std::string_view volume_key, Bytes cookie_key, int fd);
EncodedMessage encode_close(MessageIds ids);
EncodedMessage encode_read(MessageIds ids, ByteRange range);

size_t open_message_size(size_t volume_key_size, size_t cookie_key_size);

// What a user daemon reads. `opcode` says which of the other fields mean anything.
struct Message {
  Opcode opcode = Opcode::kOpen;
  uint32_t msg_id = 0;
  uint32_t object_id = 0;
  // OPEN
  std::string volume_key;
  Buffer cookie_key;
  int fd = -1;
  uint32_t flags = 0;
  // READ
  ByteRange range;
};

// Exactly one message. kCorrupt when lengths disagree, kUnsupported for an unknown opcode.
Result<Message> decode_message(Bytes bytes);

}  // namespace hydrant::proto
