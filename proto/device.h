// The part of the control channel that serves programs written for the kernel: frames that carry the descriptor of a
// socket for their answer, and the names by which such a program's descriptors are known again after a fork, an exec or
// a journey through another process. docs/formats/channel.md describes them. daemon/devices.h serves them, shim/ speaks
// them.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string_view>

#include "proto/channel.h"

namespace hydrant::proto::device {

using channel::Frame;
using channel::Head;

// Flag of an answer to kDeviceRead: the socket it came on is the object's handle from now on.
inline constexpr uint16_t kIsHandle = 0x0001;
inline constexpr uint64_t kMaxMemory = 64 << 20;  // of one kWriteMemory

// What open(2) was told: O_RDONLY, O_WRONLY or O_RDWR.
struct Open {
  uint32_t version = channel::kVersion;
  uint32_t access = 2;
  bool operator==(const Open&) const = default;
};
struct Read {
  uint32_t buffer_size = 0;
  uint32_t usable = 0;     // bytes of the buffer in front of an address that cannot be written; at most buffer_size
  int32_t descriptor = 0;  // 0, or why the process has no number for a descriptor: -EMFILE, -ENFILE
  bool operator==(const Read&) const = default;
};
// The bytes stand in a memfd that is passed along, from its start.
struct WriteMemory {
  uint64_t offset = 0;  // of a positional write, else 0
  uint64_t length = 0;
  uint32_t positional = 0;  // 0 or 1
  bool operator==(const WriteMemory&) const = default;
};

// Requests. Nothing: wrong op, flags, length, or a value out of range.
std::optional<Open> decode_open(const Frame& frame);
std::optional<Read> decode_read(const Frame& frame);
std::optional<WriteMemory> decode_write_memory(const Frame& frame);
bool decode_bare(const Frame& frame);  // kHold, kReadiness, kClosing

Head encode_open(uint64_t tag, const Open& open);
Head encode_read(uint64_t tag, const Read& read);
Head encode_write_memory(uint64_t tag, const WriteMemory& write);
Head encode_bare(channel::Op op, uint64_t tag);
Head encode_read_answer(uint64_t tag, int64_t result, size_t body_size, bool is_handle);

// Which of a program's descriptors this is: hydrantd binds its end of the pair to an abstract address, and whoever
// holds the other end asks for its peer's name. Neither needs a table that could go out of step.
enum class Kind : char {
  kDevice = 'd',     // stands for an open /dev/cachefiles
  kHandle = 'h',     // stands for an object's anonymous descriptor
  kReadiness = 'r',  // shows to poll what the device has to say
  kHold = 'l',       // nothing but a user of the engine
};
struct Name {
  Kind kind = Kind::kDevice;
  uint8_t access = 0;  // of a device
  uint64_t id = 0;     // of a device and its readiness: the same
  bool operator==(const Name&) const = default;
};
inline constexpr size_t kNameSize = 38;
// The address without its leading NUL.
std::array<char, kNameSize> encode_name(const Name& name);
std::optional<Name> decode_name(std::string_view text);

}  // namespace hydrant::proto::device
