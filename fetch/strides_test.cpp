#include "fetch/strides.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>

namespace hydrant::fetch {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

constexpr uint64_t kMiB = 1 << 20, kSize = 1024 * kMiB;

class StridesTest : public testing::Test {
 protected:
  std::vector<ByteRange> miss(uint64_t at, uint64_t size = 4096) { return strides_.miss({at, at + size}, kSize); }
  Strides strides_;
};

TEST_F(StridesTest, FourAtOneDistanceAreFollowed) {
  EXPECT_THAT(miss(5 * kMiB), IsEmpty());
  EXPECT_THAT(miss(8 * kMiB), IsEmpty());
  EXPECT_THAT(miss(11 * kMiB), IsEmpty());
  EXPECT_THAT(miss(14 * kMiB),
              ElementsAre(ByteRange{17 * kMiB, 17 * kMiB + 4096}, ByteRange{20 * kMiB, 20 * kMiB + 4096},
                          ByteRange{23 * kMiB, 23 * kMiB + 4096}, ByteRange{26 * kMiB, 26 * kMiB + 4096}));
  EXPECT_EQ(miss(29 * kMiB).size(), 8u) << "the next miss is behind what was fetched ahead";
  EXPECT_EQ(miss(56 * kMiB).size(), 16u);
  EXPECT_EQ(miss(107 * kMiB).size(), 32u);
  EXPECT_EQ(miss(206 * kMiB).size(), 32u) << "no more at a time";
}

TEST_F(StridesTest, OthersMayReadInBetween) {
  for (uint64_t i = 0; i < 3; ++i) {
    EXPECT_THAT(miss(i * 10 * kMiB), IsEmpty());
    EXPECT_THAT(miss(500 * kMiB + i * i * kMiB), IsEmpty());
    EXPECT_THAT(miss(700 * kMiB + (7 * i * i + i) * kMiB), IsEmpty());
  }
  EXPECT_EQ(miss(30 * kMiB).size(), 4u);
}

TEST_F(StridesTest, EndWithTheDevice) {
  for (uint64_t i = 0; i < 3; ++i) EXPECT_THAT(miss(i * 300 * kMiB), IsEmpty());
  EXPECT_THAT(miss(900 * kMiB), IsEmpty());
  strides_ = {};
  for (uint64_t i = 0; i < 3; ++i) EXPECT_THAT(miss((10 + i * 250) * kMiB), IsEmpty());
  EXPECT_THAT(miss(760 * kMiB), ElementsAre(ByteRange{1010 * kMiB, 1010 * kMiB + 4096}));
}

TEST_F(StridesTest, NeitherStreamsNorRandomReadersAreFollowed) {
  for (uint64_t at = 0; at < 8 * kMiB; at += 128 << 10) EXPECT_THAT(miss(at, 128 << 10), IsEmpty());
  std::mt19937_64 random(7);
  for (int i = 0; i < 2000; ++i) EXPECT_THAT(miss(random() % (kSize / 4096) * 4096), IsEmpty());
}

}  // namespace
}  // namespace hydrant::fetch
