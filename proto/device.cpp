#include "proto/device.h"

#include <cstring>

namespace hydrant::proto::device {
namespace {

using channel::Header;
using channel::kAnswer;
using channel::Op;

constexpr std::string_view kPrefix = "hydrant-cachefiles-";  // then kind, access, '-', 16 hex digits
constexpr char kHex[] = "0123456789abcdef";
static_assert(kPrefix.size() + 3 + 16 == kNameSize);

bool is_request(const Frame& frame, Op op) {
  return frame.header.op == op && frame.header.flags == 0 && frame.header.result == 0;
}
bool whole(const Cursor& cursor) { return cursor.ok() && cursor.rest().empty(); }

// Fields of a payload in the order of docs/formats/channel.md.
template <class... Field>
Head request(Op op, uint64_t tag, Field... field) {
  std::array<std::byte, (sizeof(field) + ... + 0)> fixed;
  size_t at = 0;
  ((store_le(fixed.data() + at, field), at += sizeof field), ...);
  return channel::make_head(Header{.op = op, .tag = tag}, fixed, 0);
}

}  // namespace

std::optional<Open> decode_open(const Frame& frame) {
  if (!is_request(frame, Op::kDevice)) return std::nullopt;
  Cursor cursor(frame.payload);
  Open open{cursor.take<uint32_t>(), cursor.take<uint32_t>()};
  if (!whole(cursor) || open.access > 2) return std::nullopt;
  return open;
}

std::optional<Read> decode_read(const Frame& frame) {
  if (!is_request(frame, Op::kDeviceRead)) return std::nullopt;
  Cursor cursor(frame.payload);
  Read read{cursor.take<uint32_t>(), cursor.take<uint32_t>(), cursor.take<int32_t>()};
  if (!whole(cursor) || read.buffer_size > channel::kMaxReadBuffer || read.usable > read.buffer_size ||
      read.descriptor > 0 || read.descriptor < -4095)
    return std::nullopt;
  return read;
}

std::optional<WriteMemory> decode_write_memory(const Frame& frame) {
  if (!is_request(frame, Op::kWriteMemory)) return std::nullopt;
  Cursor cursor(frame.payload);
  WriteMemory write{cursor.take<uint64_t>(), cursor.take<uint64_t>(), cursor.take<uint32_t>()};
  if (!whole(cursor) || write.length == 0 || write.length > kMaxMemory || write.positional > 1 ||
      (!write.positional && write.offset != 0) || write.offset > UINT64_MAX - write.length)
    return std::nullopt;
  return write;
}

bool decode_bare(const Frame& frame) {
  Op op = frame.header.op;
  return (op == Op::kHold || op == Op::kReadiness || op == Op::kClosing) && is_request(frame, op) &&
         frame.payload.empty();
}

Head encode_open(uint64_t tag, const Open& open) { return request(Op::kDevice, tag, open.version, open.access); }
Head encode_read(uint64_t tag, const Read& read) {
  return request(Op::kDeviceRead, tag, read.buffer_size, read.usable, read.descriptor);
}
Head encode_write_memory(uint64_t tag, const WriteMemory& write) {
  return request(Op::kWriteMemory, tag, write.offset, write.length, write.positional);
}
Head encode_bare(Op op, uint64_t tag) { return request(op, tag); }

Head encode_read_answer(uint64_t tag, int64_t result, size_t body_size, bool is_handle) {
  uint16_t flags = is_handle ? kAnswer | kIsHandle : kAnswer;
  return channel::make_head(Header{.op = Op::kDeviceRead, .flags = flags, .tag = tag, .result = result}, {}, body_size);
}

std::array<char, kNameSize> encode_name(const Name& name) {
  std::array<char, kNameSize> out;
  char* at = out.data();
  std::memcpy(at, kPrefix.data(), kPrefix.size());
  at += kPrefix.size();
  *at++ = char(name.kind);
  *at++ = char('0' + name.access);
  *at++ = '-';
  for (int shift = 60; shift >= 0; shift -= 4) *at++ = kHex[(name.id >> shift) & 15];
  return out;
}

std::optional<Name> decode_name(std::string_view text) {
  if (text.size() != kNameSize || !text.starts_with(kPrefix)) return std::nullopt;
  text.remove_prefix(kPrefix.size());
  Name name{.kind = Kind(text[0]), .access = uint8_t(text[1] - '0')};
  if (std::string_view("dhrl").find(text[0]) == text.npos || name.access > 2 || text[2] != '-') return std::nullopt;
  for (char digit : text.substr(3)) {
    size_t value = std::string_view(kHex).find(digit);
    if (value == std::string_view::npos) return std::nullopt;
    name.id = name.id << 4 | value;
  }
  return name;
}

}  // namespace hydrant::proto::device
