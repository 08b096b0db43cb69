#include "proto/device.h"

#include <gtest/gtest.h>

#include <cerrno>

#include "base/digest.h"

namespace hydrant::proto::device {
namespace {

using channel::decode_frame;
using channel::Op;

template <class Decode>
auto decoded(const Head& head, Decode decode) {
  return decode(decode_frame(head.bytes()).value());
}

// The bytes of docs/formats/channel.md: changing them is a new version.
TEST(Device, FramesHaveTheirGoldenBytes) {
  EXPECT_EQ(to_hex(encode_open(1, {.access = 2}).bytes()),
            "0800000020000000"
            "0100000000000000"
            "0000000000000000"
            "01000000"
            "02000000");
  EXPECT_EQ(to_hex(encode_read(2, {.buffer_size = 1024, .usable = 100, .descriptor = -EMFILE}).bytes()),
            "0c00000024000000"
            "0200000000000000"
            "0000000000000000"
            "00040000"
            "64000000"
            "e8ffffff");
  EXPECT_EQ(to_hex(encode_write_memory(3, {.offset = 4096, .length = 1 << 20, .positional = 1}).bytes()),
            "140000002c000000"
            "0300000000000000"
            "0000000000000000"
            "0010000000000000"
            "0000100000000000"
            "01000000");
  EXPECT_EQ(to_hex(encode_bare(Op::kClosing, 4).bytes()),
            "0e00000018000000"
            "0400000000000000"
            "0000000000000000");
  EXPECT_EQ(to_hex(encode_read_answer(5, 37, 37, true).bytes()),
            "0c0001803d000000"
            "0500000000000000"
            "2500000000000000");
}

TEST(Device, AFrameDecodesToWhatWasEncoded) {
  EXPECT_EQ(decoded(encode_open(1, {.access = 1}), decode_open), (Open{.access = 1}));
  Read read{.buffer_size = 4096, .usable = 7, .descriptor = -ENFILE};
  EXPECT_EQ(decoded(encode_read(1, read), decode_read), read);
  WriteMemory write{.offset = 0, .length = kMaxMemory, .positional = 0};
  EXPECT_EQ(decoded(encode_write_memory(1, write), decode_write_memory), write);
  for (Op op : {Op::kHold, Op::kReadiness, Op::kClosing}) EXPECT_TRUE(decoded(encode_bare(op, 1), decode_bare));
}

TEST(Device, ValuesOutOfRangeAreRefused) {
  EXPECT_FALSE(decoded(encode_open(1, {.access = 3}), decode_open));
  EXPECT_FALSE(decoded(encode_read(1, {.buffer_size = 8, .usable = 9}), decode_read));
  EXPECT_FALSE(decoded(encode_read(1, {.buffer_size = channel::kMaxReadBuffer + 1}), decode_read));
  EXPECT_FALSE(decoded(encode_read(1, {.descriptor = 1}), decode_read));
  EXPECT_FALSE(decoded(encode_write_memory(1, {.length = 0}), decode_write_memory));
  EXPECT_FALSE(decoded(encode_write_memory(1, {.length = kMaxMemory + 1}), decode_write_memory));
  EXPECT_FALSE(decoded(encode_write_memory(1, {.offset = 1, .length = 1}), decode_write_memory));
  EXPECT_FALSE(
      decoded(encode_write_memory(1, {.offset = UINT64_MAX, .length = 1, .positional = 1}), decode_write_memory));
  EXPECT_FALSE(decoded(encode_bare(Op::kCwd, 1), decode_bare));
  EXPECT_FALSE(decoded(encode_read(1, {}), decode_open));
}

TEST(Device, NamesAreReadBackAndOthersAreNot) {
  Name name{.kind = Kind::kDevice, .access = 2, .id = 0x0123456789abcdef};
  auto text = encode_name(name);
  EXPECT_EQ(std::string_view(text.data(), text.size()), "hydrant-cachefiles-d2-0123456789abcdef");
  EXPECT_EQ(decode_name({text.data(), text.size()}), name);
  for (std::string_view wrong : {"", "hydrant-cachefiles-d2-0123456789abcde", "hydrant-cachefiles-x2-0123456789abcdef",
                                 "hydrant-cachefiles-d3-0123456789abcdef", "hydrant-cachefiles-d2-0123456789abcdeF",
                                 "hydrant-cachefiles-d2+0123456789abcdef", "Hydrant-cachefiles-d2-0123456789abcdef"})
    EXPECT_FALSE(decode_name(wrong)) << wrong;
}

}  // namespace
}  // namespace hydrant::proto::device
