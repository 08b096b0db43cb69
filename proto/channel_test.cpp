#include "proto/channel.h"

#include <gtest/gtest.h>

#include "base/digest.h"

namespace hydrant::proto::channel {
namespace {

Buffer joined(const Head& head, Bytes body = {}) {
  Buffer out = to_buffer(head.bytes());
  append(out, body);
  return out;
}
std::string hex(const Head& head, Bytes body = {}) { return to_hex(joined(head, body)); }

// A frame with one field overwritten.
template <class T>
Buffer bent(const Head& head, size_t at, T value, Bytes body = {}) {
  Buffer out = joined(head, body);
  store_le(out.data() + at, value);
  return out;
}

constexpr size_t kFlagsAt = 2, kResultAt = 16, kPayloadAt = kHeaderSize;

// The bytes of docs/formats/channel.md: changing them is a new version.
TEST(Channel, FramesHaveTheirGoldenBytes) {
  EXPECT_EQ(hex(encode_hello(1, {.mode = Mode::kAttach, .features = 0x0102})),
            "0100000028000000"
            "0100000000000000"
            "0000000000000000"
            "01000000"
            "01000000"
            "0201000000000000");
  EXPECT_EQ(hex(encode_bytes(Op::kWrite, 2, 7), as_bytes("restore")),
            "020000001f000000"
            "0200000000000000"
            "0000000000000000"
            "726573746f7265");
  EXPECT_EQ(hex(encode_read(3, {.buffer_size = 1024, .count = 64}, true)),
            "0300010020000000"
            "0300000000000000"
            "0000000000000000"
            "00040000"
            "40000000");
  EXPECT_EQ(hex(encode_poll(4, {.seen = 5}, false)),
            "040000001c000000"
            "0400000000000000"
            "0000000000000000"
            "05000000");
  EXPECT_EQ(hex(encode_cwd(5)),
            "0500000018000000"
            "0500000000000000"
            "0000000000000000");
  EXPECT_EQ(hex(encode_window(6, {.id = 9})),
            "060000001c000000"
            "0600000000000000"
            "0000000000000000"
            "09000000");
  EXPECT_EQ(hex(encode_cancel(7, {.tag = 3})),
            "0700000020000000"
            "0700000000000000"
            "0000000000000000"
            "0300000000000000");
  Pwrite pwrite{.offset = 0x1000, .window_offset = 0x2000, .length = 0x3000, .window = 1, .msg_id = 42};
  EXPECT_EQ(hex(encode_pwrite(8, pwrite, kFromWindow | kComplete)),
            "1000030038000000"
            "0800000000000000"
            "0000000000000000"
            "0010000000000000"
            "0020000000000000"
            "0030000000000000"
            "01000000"
            "2a000000");
  EXPECT_EQ(hex(encode_pwrite(9, {.offset = 0, .length = 2, .data = as_bytes("hi")}, kNoAnswer), as_bytes("hi")),
            "100004003a000000"
            "0900000000000000"
            "0000000000000000"
            "0000000000000000"
            "0000000000000000"
            "0200000000000000"
            "00000000"
            "00000000"
            "6869");
  EXPECT_EQ(hex(encode_lane(12)),
            "0a00000018000000"
            "0c00000000000000"
            "0000000000000000");
  Head drop = encode_drop(13);
  drop.address(0x0102);
  EXPECT_EQ(hex(drop),
            "1500000018000000"
            "0d00000000000000"
            "0201000000000000");
  EXPECT_EQ(hex(encode_lseek(10, {.offset = -1, .whence = 3})),
            "1200000024000000"
            "0a00000000000000"
            "0000000000000000"
            "ffffffffffffffff"
            "03000000");
  EXPECT_EQ(hex(encode_ioctl(11, {.argument = 7, .number = 0x40049801})),
            "1300000024000000"
            "0b00000000000000"
            "0000000000000000"
            "0700000000000000"
            "01980440");
  EXPECT_EQ(hex(encode_answer(Op::kRead, 3, 16, 2), as_bytes("hi")),
            "030000801a000000"
            "0300000000000000"
            "1000000000000000"
            "6869");
  EXPECT_EQ(hex(encode_completion(8, 0x3000, -22)),
            "100000801c000000"
            "0800000000000000"
            "0030000000000000"
            "eaffffff");
}

TEST(Channel, AFrameDecodesToWhatWasEncoded) {
  Buffer bytes = joined(encode_hello(7, {.mode = Mode::kAttach}));
  EXPECT_EQ(decode_hello(*decode_frame(bytes)), (Hello{.mode = Mode::kAttach}));
  bytes = joined(encode_read(7, {64, 3}, true));
  EXPECT_EQ(decode_read(*decode_frame(bytes)), (Read{64, 3}));
  bytes = joined(encode_lseek(7, {-5, 4}));
  EXPECT_EQ(decode_lseek(*decode_frame(bytes)), (Lseek{-5, 4}));
  bytes = joined(encode_pwrite(7, {.offset = 4096, .length = 3, .msg_id = 9, .data = as_bytes("abc")}, kComplete),
                 as_bytes("abc"));
  auto pwrite = decode_pwrite(*decode_frame(bytes));
  ASSERT_TRUE(pwrite);
  EXPECT_EQ(as_text(pwrite->data), "abc");
  EXPECT_EQ(pwrite->msg_id, 9u);
  bytes = joined(encode_completion(7, 3, -2));
  EXPECT_EQ(decode_completion(*decode_frame(bytes)), -2);
  bytes = joined(encode_hello_answer(7, {}));
  EXPECT_EQ(decode_hello_answer(*decode_frame(bytes)), Hello{});
}

TEST(Channel, FramesAreTakenOffAMessageUntilOneIsTorn) {
  Buffer message = joined(encode_bytes(Op::kWrite, 1, 3), as_bytes("one"));
  append(message, joined(encode_cwd(2)));
  append(message, joined(encode_bytes(Op::kWrite, 3, 5), as_bytes("three")));
  Bytes rest = message;
  EXPECT_EQ(as_text(*decode_bytes(*take_frame(rest))), "one");
  EXPECT_EQ(take_frame(rest)->header.tag, 2u);
  Bytes torn = rest.first(rest.size() - 1);
  EXPECT_FALSE(take_frame(torn));
  EXPECT_EQ(as_text(*decode_bytes(*take_frame(rest))), "three");
  EXPECT_TRUE(rest.empty());
  EXPECT_FALSE(take_frame(rest));
  Buffer small = bent<uint32_t>(encode_cwd(1), 4, 23);
  Bytes at = small;
  EXPECT_FALSE(take_frame(at));
}

TEST(Channel, TornAndOverlongFramesAreRefused) {
  Buffer whole = joined(encode_bytes(Op::kWrite, 1, 3), as_bytes("bin"));
  ASSERT_TRUE(decode_frame(whole));
  for (size_t size = 0; size < whole.size(); ++size) EXPECT_FALSE(decode_frame(Bytes(whole).first(size))) << size;
  whole.push_back(std::byte{0});
  EXPECT_FALSE(decode_frame(whole));
  Buffer huge(kMaxFrame + 1);
  store_le<uint16_t>(huge.data(), uint16_t(Op::kWrite));
  store_le<uint32_t>(huge.data() + 4, uint32_t(huge.size()));
  EXPECT_FALSE(decode_frame(huge));
  EXPECT_FALSE(decode_frame(bent<uint16_t>(encode_cwd(1), 0, 99))) << "unknown op";
}

TEST(Channel, FlagsAndFieldsThatMeanNothingAreRefused) {
  auto refused = [](const auto& decode, const Buffer& bytes) {
    auto frame = decode_frame(bytes);
    return !frame || !decode(*frame);
  };
  EXPECT_TRUE(refused(decode_hello, bent<uint16_t>(encode_hello(1, {}), kFlagsAt, kWait)));
  EXPECT_TRUE(refused(decode_hello, bent<uint16_t>(encode_hello(1, {}), kFlagsAt, kAnswer)));
  EXPECT_TRUE(refused(decode_hello, bent<int64_t>(encode_hello(1, {}), kResultAt, 1)));
  EXPECT_TRUE(refused(decode_hello, bent<uint32_t>(encode_hello(1, {}), kPayloadAt + 4, 2))) << "mode";
  EXPECT_TRUE(refused(decode_read, joined(encode_read(1, {kMaxReadBuffer + 1, 1}, true))));
  EXPECT_TRUE(refused(decode_read, joined(encode_read(1, {1024, 0}, true))));
  EXPECT_TRUE(refused(decode_read, joined(encode_read(1, {1024, kMaxCredits + 1}, true))));
  EXPECT_TRUE(refused(decode_read, joined(encode_read(1, {1024, 2}, false)))) << "no count without wait";
  EXPECT_TRUE(refused(decode_window, joined(encode_window(1, {kMaxWindows}))));
}

TEST(Channel, WritesThatLeaveTheirFrameWindowOrFileAreRefused) {
  auto window = [](Pwrite pwrite, uint16_t flags = kFromWindow) {
    Buffer bytes = joined(encode_pwrite(1, pwrite, flags));
    return decode_pwrite(*decode_frame(bytes)).has_value();
  };
  EXPECT_TRUE(window({.window_offset = kMaxWindowSize - 1, .length = 1}));
  EXPECT_FALSE(window({.window_offset = kMaxWindowSize, .length = 1}));
  EXPECT_FALSE(window({.window_offset = UINT64_MAX, .length = 2}));
  EXPECT_FALSE(window({.length = kMaxWindowSize + 1}));
  EXPECT_FALSE(window({.offset = UINT64_MAX, .length = 2}));
  EXPECT_FALSE(window({.length = 1, .window = kMaxWindows}));
  EXPECT_FALSE(window({.length = 1, .msg_id = 4})) << "a msg_id that nothing completes";
  EXPECT_FALSE(window({.length = 4}, 0)) << "inline bytes that are not there";
  Head head = encode_pwrite(1, {.length = 4, .data = as_bytes("data")}, 0);
  Buffer lying = bent<uint64_t>(head, kPayloadAt + 16, 3, as_bytes("data"));
  EXPECT_FALSE(decode_pwrite(*decode_frame(lying)));
}

}  // namespace
}  // namespace hydrant::proto::channel
