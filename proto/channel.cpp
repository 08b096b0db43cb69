#include "proto/channel.h"

#include <cstring>

#include "base/check.h"

namespace hydrant::proto::channel {
namespace {

bool known(Op op) {
  switch (op) {
    case Op::kHello:
    case Op::kWrite:
    case Op::kRead:
    case Op::kPoll:
    case Op::kCwd:
    case Op::kWindow:
    case Op::kCancel:
    case Op::kDevice:
    case Op::kHold:
    case Op::kLane:
    case Op::kDeviceRead:
    case Op::kReadiness:
    case Op::kClosing:
    case Op::kPwrite:
    case Op::kAppend:
    case Op::kLseek:
    case Op::kIoctl:
    case Op::kWriteMemory:
    case Op::kDrop: return true;
  }
  return false;
}

bool is_request(const Frame& frame, Op op, uint16_t flags = 0) {
  return frame.header.op == op && (frame.header.flags & ~flags) == 0 && frame.header.result == 0;
}

// Everything of a fixed payload was taken, and nothing more is there.
bool whole(const Cursor& cursor) { return cursor.ok() && cursor.rest().empty(); }

// Collects the fixed part of a payload in the order of docs/formats/channel.md.
class Fixed {
 public:
  template <class T>
  Fixed& put(T value) {
    store_le(storage_.data() + size_, value);
    size_ += sizeof value;
    return *this;
  }
  Bytes bytes() const { return Bytes(storage_).first(size_); }

 private:
  std::array<std::byte, 40> storage_;
  size_t size_ = 0;
};

Head request(Op op, uint16_t flags, uint64_t tag, const Fixed& fixed, size_t body_size = 0) {
  return make_head(Header{.op = op, .flags = flags, .tag = tag}, fixed.bytes(), body_size);
}
Header answer(Op op, uint64_t tag, int64_t result) {
  return Header{.op = op, .flags = kAnswer, .tag = tag, .result = result};
}

std::optional<Hello> take_hello(Bytes payload) {
  Cursor cursor(payload);
  Hello hello;
  hello.version = cursor.take<uint32_t>();
  auto mode = cursor.take<uint32_t>();
  hello.features = cursor.take<uint64_t>();
  if (!whole(cursor) || mode > 1) return std::nullopt;
  hello.mode = Mode(mode);
  return hello;
}

}  // namespace

std::optional<Frame> decode_frame(Bytes message) {
  Cursor cursor(message);
  Frame frame;
  frame.header.op = Op(cursor.take<uint16_t>());
  frame.header.flags = cursor.take<uint16_t>();
  frame.header.size = cursor.take<uint32_t>();
  frame.header.tag = cursor.take<uint64_t>();
  frame.header.result = cursor.take<int64_t>();
  frame.payload = cursor.rest();
  if (!cursor.ok() || frame.header.size != message.size() || message.size() > kMaxFrame || !known(frame.header.op))
    return std::nullopt;
  return frame;
}

std::optional<Frame> take_frame(Bytes& rest) {
  if (rest.size() < kHeaderSize) return std::nullopt;
  auto size = load_le<uint32_t>(rest.data() + 4);
  auto frame = size <= rest.size() ? decode_frame(rest.first(size)) : std::nullopt;
  if (frame) rest = rest.subspan(size);
  return frame;
}

std::optional<Hello> decode_hello(const Frame& frame) {
  if (!is_request(frame, Op::kHello)) return std::nullopt;
  return take_hello(frame.payload);
}

std::optional<Hello> decode_hello_answer(const Frame& frame) {
  if (frame.header.op != Op::kHello || frame.header.flags != kAnswer) return std::nullopt;
  return take_hello(frame.payload);
}

std::optional<Read> decode_read(const Frame& frame) {
  if (!is_request(frame, Op::kRead, kWait)) return std::nullopt;
  Cursor cursor(frame.payload);
  Read read{cursor.take<uint32_t>(), cursor.take<uint32_t>()};
  uint32_t most = frame.header.flags & kWait ? kMaxCredits : 1;
  if (!whole(cursor) || read.buffer_size > kMaxReadBuffer || read.count == 0 || read.count > most) return std::nullopt;
  return read;
}

std::optional<Poll> decode_poll(const Frame& frame) {
  if (!is_request(frame, Op::kPoll, kWait)) return std::nullopt;
  Cursor cursor(frame.payload);
  Poll poll{cursor.take<uint32_t>()};
  if (!whole(cursor)) return std::nullopt;
  return poll;
}

std::optional<Window> decode_window(const Frame& frame) {
  if (!is_request(frame, Op::kWindow)) return std::nullopt;
  Cursor cursor(frame.payload);
  Window window{cursor.take<uint32_t>()};
  if (!whole(cursor) || window.id >= kMaxWindows) return std::nullopt;
  return window;
}

std::optional<Cancel> decode_cancel(const Frame& frame) {
  if (!is_request(frame, Op::kCancel)) return std::nullopt;
  Cursor cursor(frame.payload);
  Cancel cancel{cursor.take<uint64_t>()};
  if (!whole(cursor)) return std::nullopt;
  return cancel;
}

std::optional<Pwrite> decode_pwrite(const Frame& frame) {
  if (!is_request(frame, Op::kPwrite, kFromWindow | kComplete | kNoAnswer)) return std::nullopt;
  Cursor cursor(frame.payload);
  Pwrite pwrite;
  pwrite.offset = cursor.take<uint64_t>();
  pwrite.window_offset = cursor.take<uint64_t>();
  pwrite.length = cursor.take<uint64_t>();
  pwrite.window = cursor.take<uint32_t>();
  pwrite.msg_id = cursor.take<uint32_t>();
  pwrite.data = cursor.rest();
  if (!cursor.ok()) return std::nullopt;
  if (!(frame.header.flags & kComplete) && pwrite.msg_id != 0) return std::nullopt;
  uint64_t end;
  if (frame.header.flags & kFromWindow) {
    if (!pwrite.data.empty() || pwrite.window >= kMaxWindows || pwrite.length > kMaxWindowSize ||
        __builtin_add_overflow(pwrite.window_offset, pwrite.length, &end) || end > kMaxWindowSize)
      return std::nullopt;
  } else if (pwrite.length != pwrite.data.size() || pwrite.length > kMaxInline || pwrite.window != 0 ||
             pwrite.window_offset != 0) {
    return std::nullopt;
  }
  // An offset that is no off_t is the engine's to refuse, as the kernel's pwrite does; a sum must not wrap.
  if (__builtin_add_overflow(pwrite.offset, pwrite.length, &end)) return std::nullopt;
  return pwrite;
}

std::optional<Lseek> decode_lseek(const Frame& frame) {
  if (!is_request(frame, Op::kLseek)) return std::nullopt;
  Cursor cursor(frame.payload);
  Lseek lseek{cursor.take<int64_t>(), cursor.take<int32_t>()};
  if (!whole(cursor)) return std::nullopt;
  return lseek;
}

std::optional<Ioctl> decode_ioctl(const Frame& frame) {
  if (!is_request(frame, Op::kIoctl)) return std::nullopt;
  Cursor cursor(frame.payload);
  Ioctl ioctl{cursor.take<uint64_t>(), cursor.take<uint32_t>()};
  if (!whole(cursor)) return std::nullopt;
  return ioctl;
}

std::optional<Bytes> decode_bytes(const Frame& frame) {
  if (!is_request(frame, Op::kWrite) && !is_request(frame, Op::kAppend)) return std::nullopt;
  if (frame.payload.size() > kMaxInline) return std::nullopt;
  return frame.payload;
}

bool decode_empty(const Frame& frame) {
  auto op = frame.header.op;
  return (op == Op::kCwd || op == Op::kLane || op == Op::kDrop) && is_request(frame, op) && frame.payload.empty();
}

std::optional<int32_t> decode_completion(const Frame& frame) {
  if (frame.header.op != Op::kPwrite || frame.header.flags != kAnswer) return std::nullopt;
  Cursor cursor(frame.payload);
  auto completion = cursor.take<int32_t>();
  if (!whole(cursor)) return std::nullopt;
  return completion;
}

Head make_head(Header header, Bytes fixed, size_t body_size) {
  Head head;
  head.size_ = kHeaderSize + fixed.size();
  HYDRANT_CHECK(head.size_ <= head.storage_.size() && head.size_ + body_size <= kMaxFrame,
                "callers split what does not fit a frame");
  std::byte* at = head.storage_.data();
  store_le(at, uint16_t(header.op));
  store_le(at + 2, header.flags);
  store_le(at + 4, uint32_t(head.size_ + body_size));
  store_le(at + 8, header.tag);
  store_le(at + 16, header.result);
  if (!fixed.empty()) std::memcpy(at + kHeaderSize, fixed.data(), fixed.size());
  return head;
}

Head encode_hello(uint64_t tag, const Hello& hello) {
  return request(Op::kHello, 0, tag, Fixed().put(hello.version).put(uint32_t(hello.mode)).put(hello.features));
}
Head encode_bytes(Op op, uint64_t tag, size_t body_size) { return request(op, 0, tag, Fixed(), body_size); }
Head encode_read(uint64_t tag, const Read& read, bool wait) {
  return request(Op::kRead, wait ? kWait : 0, tag, Fixed().put(read.buffer_size).put(read.count));
}
Head encode_poll(uint64_t tag, const Poll& poll, bool wait) {
  return request(Op::kPoll, wait ? kWait : 0, tag, Fixed().put(poll.seen));
}
Head encode_cwd(uint64_t tag) { return request(Op::kCwd, 0, tag, Fixed()); }
Head encode_lane(uint64_t tag) { return request(Op::kLane, 0, tag, Fixed()); }
Head encode_drop(uint64_t tag) { return request(Op::kDrop, 0, tag, Fixed()); }
Head encode_window(uint64_t tag, const Window& window) { return request(Op::kWindow, 0, tag, Fixed().put(window.id)); }
Head encode_cancel(uint64_t tag, const Cancel& cancel) { return request(Op::kCancel, 0, tag, Fixed().put(cancel.tag)); }
Head encode_pwrite(uint64_t tag, const Pwrite& pwrite, uint16_t flags) {
  Fixed fixed;
  fixed.put(pwrite.offset).put(pwrite.window_offset).put(pwrite.length).put(pwrite.window).put(pwrite.msg_id);
  return request(Op::kPwrite, flags, tag, fixed, flags & kFromWindow ? 0 : pwrite.data.size());
}
Head encode_lseek(uint64_t tag, const Lseek& lseek) {
  return request(Op::kLseek, 0, tag, Fixed().put(lseek.offset).put(lseek.whence));
}
Head encode_ioctl(uint64_t tag, const Ioctl& ioctl) {
  return request(Op::kIoctl, 0, tag, Fixed().put(ioctl.argument).put(ioctl.number));
}

Head encode_answer(Op op, uint64_t tag, int64_t result, size_t body_size) {
  return make_head(answer(op, tag, result), {}, body_size);
}
Head encode_hello_answer(uint64_t tag, const Hello& hello) {
  Fixed fixed;
  fixed.put(hello.version).put(uint32_t(hello.mode)).put(hello.features);
  return make_head(answer(Op::kHello, tag, 0), fixed.bytes(), 0);
}
Head encode_completion(uint64_t tag, int64_t result, int32_t completion) {
  return make_head(answer(Op::kPwrite, tag, result), Fixed().put(completion).bytes(), 0);
}

}  // namespace hydrant::proto::channel
