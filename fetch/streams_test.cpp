#include "fetch/streams.h"

#include <gtest/gtest.h>

namespace hydrant::fetch {
namespace {

class StreamsTest : public testing::Test {
 protected:
  // A miss at `at` whose fill makes one unit available. Units are small against what counts as a long run.
  ByteRange miss(uint64_t at) {
    return streams_.miss({at * unit_, at * unit_ + 4096}, {at * unit_, (at + 1) * unit_}, along_ * unit_, 2 * unit_,
                         limit_ * unit_, 64 * unit_);
  }
  ByteRange units(uint64_t begin, uint64_t end) const { return {begin * unit_, end * unit_}; }
  uint64_t unit_ = 128 << 10, limit_ = 8;
  uint64_t along_ = 0;  // end of what is fetched with the next miss
  Streams streams_;
};

TEST_F(StreamsTest, RunAheadAsFarAsTheReaderHasComeUpToTheLimit) {
  EXPECT_TRUE(miss(0).empty()) << "one read is no stream";
  EXPECT_EQ(miss(1), units(2, 4));
  // The first granule of what was run ahead over is missed on purpose: the next window follows at once.
  EXPECT_EQ(miss(2), units(4, 7));
  EXPECT_EQ(miss(4), units(7, 12));
  EXPECT_EQ(miss(7), units(12, 20));
  EXPECT_EQ(miss(12), units(20, 28)) << "the limit is 8 units";
}

TEST_F(StreamsTest, WhatIsFetchedAlongCountsAsRunAhead) {
  EXPECT_TRUE(miss(0).empty());
  along_ = 8;
  EXPECT_TRUE(miss(1).empty()) << "there is more on its way than has been read";
  along_ = 0;
  EXPECT_EQ(miss(8), units(9, 17)) << "the miss behind it goes on";
}

TEST_F(StreamsTest, ALongRunWithoutGapsRunsFartherAhead) {
  unit_ = 1 << 20;
  limit_ = 30;
  EXPECT_TRUE(miss(0).empty());
  EXPECT_EQ(miss(1), units(2, 10));
  EXPECT_EQ(miss(2), units(10, 22));
  EXPECT_EQ(miss(10), units(22, 52)) << "the limit is 30 units";
}

TEST_F(StreamsTest, ALongRunWithGapsDoesNot) {
  unit_ = 512 << 10;
  EXPECT_TRUE(miss(0).empty());
  EXPECT_EQ(streams_.miss({unit_ + 8192, unit_ + 12288}, {unit_, 2 * unit_}, 0, 2 * unit_, 64 * unit_, 64 * unit_),
            units(2, 4))
      << "a gap of 8 KiB";
  EXPECT_EQ(miss(2), units(4, 7));
  EXPECT_EQ(miss(4), units(7, 12));
}

TEST_F(StreamsTest, KeepOneWindowInUseAndOneOnItsWay) {
  miss(0);
  miss(1);
  miss(2);
  miss(4);
  EXPECT_EQ(miss(7), units(12, 20));
  EXPECT_TRUE(miss(8).empty()) << "a reader that caught up with what is being fetched asks for nothing more";
}

TEST_F(StreamsTest, SurviveOthersInBetween) {
  EXPECT_TRUE(miss(10).empty());
  EXPECT_TRUE(miss(40).empty());
  EXPECT_EQ(miss(11), units(12, 14));
  EXPECT_EQ(miss(41), units(42, 44));
}

TEST_F(StreamsTest, EndWithTheDevice) {
  EXPECT_TRUE(miss(62).empty());
  EXPECT_TRUE(miss(63).empty()) << "nothing is left to run ahead over";
}

TEST_F(StreamsTest, RandomReadersHaveNoStream) {
  for (uint64_t at : {50, 3, 44, 21, 9, 33}) EXPECT_TRUE(miss(at).empty()) << at;
}

}  // namespace
}  // namespace hydrant::fetch
