#include "proto/cachefiles_message.h"

#include <gtest/gtest.h>

namespace hydrant::proto {
namespace {

TEST(CachefilesMessage, OpenCarriesBothKeysWithoutPadding) {
  auto encoded = encode_open({7, 3}, "v", as_bytes("key"), 12);
  EXPECT_EQ(encoded.size, 37u);  // 32 + "v" and its terminator + 3
  auto message = decode_message(encoded.bytes());
  ASSERT_TRUE(message);
  EXPECT_EQ(message->opcode, Opcode::kOpen);
  EXPECT_EQ(message->msg_id, 7u);
  EXPECT_EQ(message->object_id, 3u);
  EXPECT_EQ(message->volume_key, "v");
  EXPECT_EQ(as_text(message->cookie_key), "key");
  EXPECT_EQ(message->fd, 12);
  EXPECT_EQ(message->flags, 0u);
}

TEST(CachefilesMessage, TheLargestOpenFitsTheLimit) {
  std::string volume(kVolumeKeyLimit, 'v'), cookie(kCookieKeyLimit, 'c');
  EXPECT_EQ(encode_open({0, 1}, volume, as_bytes(cookie), 0).size, 543u);
  static_assert(kMessageLimit == 543);
}

TEST(CachefilesMessage, ReadAndCloseHaveFixedSizes) {
  auto read = encode_read({1, 2}, {8192, 12288});
  EXPECT_EQ(read.size, 32u);
  auto message = decode_message(read.bytes());
  ASSERT_TRUE(message);
  EXPECT_EQ(message->range, (ByteRange{8192, 12288}));
  auto close = encode_close({1, kNoObjectId});
  EXPECT_EQ(close.size, 16u);
  EXPECT_EQ(decode_message(close.bytes())->object_id, kNoObjectId);
}

TEST(CachefilesMessage, EveryTruncationIsRefused) {
  for (auto& encoded :
       {encode_open({1, 2}, "vol", as_bytes("key"), 5), encode_read({1, 2}, {0, 1}), encode_close({1, 2})})
    for (size_t size = 0; size < encoded.size; ++size) {
      EXPECT_FALSE(decode_message(encoded.bytes().first(size)));
      auto lying = encoded;  // a header that admits the truncation does not help
      store_le(&lying.storage[8], static_cast<uint32_t>(size));
      auto message = decode_message(lying.bytes().first(size));
      EXPECT_FALSE(message) << size;
    }
}

TEST(CachefilesMessage, HugeKeyLengthsAreRefused) {
  auto encoded = encode_open({1, 2}, "v", as_bytes("k"), 5);
  store_le(&encoded.storage[16], uint32_t{0xffffffff});
  EXPECT_EQ(decode_message(encoded.bytes()).error().code, Code::kCorrupt);
}

TEST(CachefilesMessage, AnUnknownOpcodeIsUnsupported) {
  auto encoded = encode_close({1, 2});
  store_le(&encoded.storage[4], uint32_t{9});
  EXPECT_EQ(decode_message(encoded.bytes()).error().code, Code::kUnsupported);
}

}  // namespace
}  // namespace hydrant::proto
