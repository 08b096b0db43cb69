// Frames of the control channel across processes: a system call on a descriptor of the kernel's protocol is one frame
// on a SEQPACKET socket, and gets one answer. docs/formats/channel.md describes each frame. Encoding and decoding only;
// daemon/channel_server.h serves them, fetch/transport/socket_control.h speaks them.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <span>

#include "base/bytes.h"

namespace hydrant::proto::channel {

inline constexpr uint32_t kVersion = 1;
inline constexpr size_t kHeaderSize = 24;
inline constexpr size_t kMaxInline = 64 << 10;                      // data bytes in a frame; more goes through a window
inline constexpr size_t kMaxFrame = kHeaderSize + 40 + kMaxInline;  // no frame of either direction is longer
inline constexpr uint32_t kMaxReadBuffer = kMaxInline;              // larger buffers are asked for as this
inline constexpr uint32_t kMaxCredits = 1024;                       // waiting READs and POLLs of one connection
inline constexpr uint32_t kMaxWindows = 16;                         // of one connection; ids 0..15
inline constexpr uint64_t kMaxWindowSize = 1 << 30;
inline constexpr uint32_t kMaxLanes = 16;  // of one connection

// Feature of a HELLO: handles are numbers, used on lanes, and a message may hold several frames
// (docs/formats/channel.md).
inline constexpr uint64_t kLanes = 1;

enum class Op : uint16_t {
  // On a control socket.
  kHello = 1,
  kWrite = 2,
  kRead = 3,
  kPoll = 4,
  kCwd = 5,
  kWindow = 6,
  kCancel = 7,
  // For programs written for the kernel: proto/device.h has their payloads.
  kDevice = 8,       // on a connection: open("/dev/cachefiles")
  kHold = 9,         // on a connection: count me as a user of the engine
  kLane = 10,        // with kLanes
  kDeviceRead = 12,  // on a device socket
  kReadiness = 13,   // on a device socket
  kClosing = 14,     // on a device or handle socket
  // On a handle socket, or a lane.
  kPwrite = 16,
  kAppend = 17,  // write(2): at the handle's own position
  kLseek = 18,
  kIoctl = 19,
  kWriteMemory = 20,  // proto/device.h; not on a lane
  kDrop = 21,         // on a lane: the handle's last close
};

// Flags of a frame. A flag that an op does not know makes the frame malformed.
enum Flag : uint16_t {
  kAnswer = 0x8000,    // every answer, no request
  kWait = 0x0001,      // READ, POLL: answer when there is something to say
  kFromWindow = 0x01,  // PWRITE: the bytes stand in a window
  kComplete = 0x02,    // PWRITE: answer a READ request too, once everything is written
  kNoAnswer = 0x04,    // PWRITE: the sender does not want to know
};

struct Header {
  Op op{};
  uint16_t flags = 0;
  uint32_t size = 0;  // of the whole frame; must equal the length of the message
  uint64_t tag = 0;   // chosen by the asker, copied into the answer
  // Of an answer: a count, a mask or a negative errno. Of a request on a lane: the handle's number. 0 in other
  // requests.
  int64_t result = 0;

  bool operator==(const Header&) const = default;
};

enum class Mode : uint32_t { kOpen = 0, kAttach = 1 };

struct Hello {
  uint32_t version = kVersion;
  Mode mode = Mode::kOpen;
  uint64_t features = 0;  // request: wanted; answer: wanted and had
  bool operator==(const Hello&) const = default;
};
struct Read {
  uint32_t buffer_size = 0;
  uint32_t count = 1;  // with kWait: answered this many times; without: 1
  bool operator==(const Read&) const = default;
};
struct Poll {
  uint32_t seen = 0;  // with kWait: answered when the mask differs from this
  bool operator==(const Poll&) const = default;
};
struct Window {
  uint32_t id = 0;
  bool operator==(const Window&) const = default;
};
struct Cancel {
  uint64_t tag = 0;
  bool operator==(const Cancel&) const = default;
};
struct Pwrite {
  uint64_t offset = 0;
  uint64_t window_offset = 0;  // with kFromWindow, else 0
  uint64_t length = 0;
  uint32_t window = 0;  // with kFromWindow, else 0
  uint32_t msg_id = 0;  // with kComplete, else 0
  Bytes data{};         // `length` inline bytes, without kFromWindow
};
struct Lseek {
  int64_t offset = 0;
  int32_t whence = 0;
  bool operator==(const Lseek&) const = default;
};
struct Ioctl {
  uint64_t argument = 0;
  uint32_t number = 0;
  bool operator==(const Ioctl&) const = default;
};

// A frame as it came: a header that fits the message, and what follows it.
struct Frame {
  Header header;
  Bytes payload;
};

// Nothing: too short, size does not equal the message's length, unknown op.
std::optional<Frame> decode_frame(Bytes message);
// Where messages may hold several frames: takes the first one off `rest`. Nothing: none that is whole stands there.
std::optional<Frame> take_frame(Bytes& rest);
// Payloads of requests. Nothing: wrong length, a value out of range, a flag the op does not know, or an answer.
std::optional<Hello> decode_hello(const Frame& frame);
std::optional<Read> decode_read(const Frame& frame);
std::optional<Poll> decode_poll(const Frame& frame);
std::optional<Window> decode_window(const Frame& frame);
std::optional<Cancel> decode_cancel(const Frame& frame);
std::optional<Pwrite> decode_pwrite(const Frame& frame);
std::optional<Lseek> decode_lseek(const Frame& frame);
std::optional<Ioctl> decode_ioctl(const Frame& frame);
std::optional<Bytes> decode_bytes(const Frame& frame);  // WRITE, APPEND
bool decode_empty(const Frame& frame);                  // CWD, LANE, DROP

// Payload of the answer to a HELLO that was accepted.
std::optional<Hello> decode_hello_answer(const Frame& frame);
// Payload of the answer to a PWRITE with kComplete: what became of the completion, 0 or -errno (-ECANCELED: not tried,
// because not everything was written).
std::optional<int32_t> decode_completion(const Frame& frame);

// The fixed part of a frame, ready to be sent in front of its bytes. No allocation.
class Head {
 public:
  Bytes bytes() const { return Bytes(storage_).first(size_); }
  void set_tag(uint64_t tag) { store_le(storage_.data() + 8, tag); }
  // Of a request: on a lane it goes to this handle.
  void address(uint32_t handle) { store_le<int64_t>(storage_.data() + 16, handle); }

 private:
  friend Head make_head(Header header, std::span<const std::byte> fixed, size_t body_size);
  std::array<std::byte, kHeaderSize + 40> storage_;
  size_t size_ = 0;
};
// `fixed` is at most 40 bytes; `body_size` counts what the caller sends after the head. Fills in header.size.
Head make_head(Header header, std::span<const std::byte> fixed, size_t body_size);

Head encode_hello(uint64_t tag, const Hello& hello);
Head encode_bytes(Op op, uint64_t tag, size_t body_size);  // WRITE, APPEND; the body is the bytes
Head encode_read(uint64_t tag, const Read& read, bool wait);
Head encode_poll(uint64_t tag, const Poll& poll, bool wait);
Head encode_cwd(uint64_t tag);   // with the directory's descriptor
Head encode_lane(uint64_t tag);  // with the lane's socket
Head encode_drop(uint64_t tag);
Head encode_window(uint64_t tag, const Window& window);
Head encode_cancel(uint64_t tag, const Cancel& cancel);
// `flags` of kFromWindow, kComplete, kNoAnswer. Without kFromWindow the body is pwrite.data.
Head encode_pwrite(uint64_t tag, const Pwrite& pwrite, uint16_t flags);
Head encode_lseek(uint64_t tag, const Lseek& lseek);
Head encode_ioctl(uint64_t tag, const Ioctl& ioctl);

Head encode_answer(Op op, uint64_t tag, int64_t result, size_t body_size = 0);
Head encode_hello_answer(uint64_t tag, const Hello& hello);
Head encode_completion(uint64_t tag, int64_t result, int32_t completion);

}  // namespace hydrant::proto::channel
