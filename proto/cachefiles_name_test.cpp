#include "proto/cachefiles_name.h"

#include <gtest/gtest.h>

namespace hydrant::proto {
namespace {

Buffer from_hex(std::string_view hex) {
  Buffer out;
  for (size_t i = 0; i + 1 < hex.size(); i += 2)
    out.push_back(std::byte(std::stoi(std::string(hex.substr(i, 2)), nullptr, 16)));
  return out;
}

struct HashCase {
  std::string volume;
  Buffer cookie;
  uint32_t volume_hash, cookie_hash;
};

TEST(CachefilesName, HashesMatchTheKernels) {
  const HashCase cases[] = {
      {"erofs,test.img", to_buffer(as_bytes("test.img")), 0xd13a83f4, 0x69ef6ef7},
      {"erofs,domain0", to_buffer(as_bytes("blob1.img")), 0x9f8824cc, 0xd157266b},
      {"erofs,a", to_buffer(as_bytes("a")), 0xcc745fa5, 0xb1cdd417},
      {"v", to_buffer(as_bytes("key")), 0x1b7a89c8, 0x7b1b69fd},
      {"afs,example.com,100058", from_hex("0000000500000009"), 0x4d1aaf83, 0x40194aad},
  };
  for (auto& c : cases) {
    EXPECT_EQ(hash_volume(c.volume), c.volume_hash) << c.volume;
    EXPECT_EQ(hash_cookie(c.volume_hash, c.cookie), c.cookie_hash) << c.volume;
  }
  EXPECT_EQ(fanout_directory(0x69ef6ef7 & 0xff), "@f7");
}

TEST(CachefilesName, NamesMatchTheKernels) {
  auto text = [](std::string_view t) { return object_name(as_bytes(t)).value(); };
  auto hex = [](std::string_view t) { return object_name(from_hex(t)).value(); };
  EXPECT_EQ(text("test.img"), "Dtest.img");
  EXPECT_EQ(hex("617f"), "Da\x7f");
  EXPECT_EQ(hex("0000000500000009"), "S5,9");
  EXPECT_EQ(hex("0500000009000000"), "T5,9");
  EXPECT_EQ(hex("00000000"), "S");
  EXPECT_EQ(hex("ffffffff"), "Sffffffff");
  EXPECT_EQ(hex("80"), "T80");
  EXPECT_EQ(hex("6b00"), "T6b");
  EXPECT_EQ(text("a/b"), "E0xZyo");
  EXPECT_EQ(text("a b"), "E0x1yo");
  EXPECT_EQ(hex("010203040506"), "E018M04kw1");
  EXPECT_EQ(hex("deadbeef00ff"), "E0uTGLL3M-");
  EXPECT_EQ(hex("0102030405060708090a0b0c"), "E018M04kw17wg2aI03");
  EXPECT_EQ(hex("ffffffffffffffffff"), "E0------------");
  EXPECT_EQ(text("dir/with/slashes"), "E2ABCsLsnqQxSbPNmoPxmpP100");
}

TEST(CachefilesName, KeysThatWouldBeCutHaveNoName) {
  EXPECT_TRUE(object_name(as_bytes(std::string(252, 'k'))));
  EXPECT_FALSE(object_name(as_bytes(std::string(253, 'k'))));
  EXPECT_FALSE(object_name(as_bytes(std::string(250, '\xff'))));
  EXPECT_FALSE(object_name({}));
}

}  // namespace
}  // namespace hydrant::proto
