#include <algorithm>

#include "base/check.h"
#include "proto/channel.h"

using namespace hydrant;
namespace ch = hydrant::proto::channel;

// Whatever decodes stays inside the message, and encodes to the same bytes.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  Bytes message = std::as_bytes(std::span(data, size));
  size_t taken = 0;
  for (Bytes rest = message; auto each = ch::take_frame(rest);) taken += each->header.size;
  HYDRANT_CHECK(taken <= size, "frames are taken from inside the message");
  auto frame = ch::decode_frame(message);
  if (!frame) return 0;
  uint64_t tag = frame->header.tag;
  uint16_t flags = frame->header.flags;
  auto same = [&](const ch::Head& head, Bytes body = {}) {
    Buffer again = to_buffer(head.bytes());
    append(again, body);
    HYDRANT_CHECK(std::ranges::equal(again, message), "a frame that decodes must encode to itself");
  };
  if (auto hello = ch::decode_hello(*frame)) same(ch::encode_hello(tag, *hello));
  if (auto read = ch::decode_read(*frame)) same(ch::encode_read(tag, *read, flags & ch::kWait));
  if (auto poll = ch::decode_poll(*frame)) same(ch::encode_poll(tag, *poll, flags & ch::kWait));
  if (auto window = ch::decode_window(*frame)) same(ch::encode_window(tag, *window));
  if (auto cancel = ch::decode_cancel(*frame)) same(ch::encode_cancel(tag, *cancel));
  if (auto pwrite = ch::decode_pwrite(*frame)) same(ch::encode_pwrite(tag, *pwrite, flags), pwrite->data);
  if (auto lseek = ch::decode_lseek(*frame)) same(ch::encode_lseek(tag, *lseek));
  if (auto ioctl = ch::decode_ioctl(*frame)) same(ch::encode_ioctl(tag, *ioctl));
  if (auto bytes = ch::decode_bytes(*frame)) same(ch::encode_bytes(frame->header.op, tag, bytes->size()), *bytes);
  if (ch::decode_empty(*frame))
    same(frame->header.op == ch::Op::kCwd    ? ch::encode_cwd(tag)
         : frame->header.op == ch::Op::kLane ? ch::encode_lane(tag)
                                             : ch::encode_drop(tag));
  (void)ch::decode_hello_answer(*frame);
  (void)ch::decode_completion(*frame);
  return 0;
}
