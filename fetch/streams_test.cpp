#include "fetch/streams.h"

#include <gtest/gtest.h>

namespace hydrant::fetch {
namespace {

constexpr uint64_t kMiB = 1 << 20;

class StreamsTest : public testing::Test {
 protected:
  // A miss at `mb` whose fill makes one MiB available.
  ByteRange miss(uint64_t mb) {
    return streams_.miss({mb * kMiB, mb * kMiB + 4096}, {mb * kMiB, (mb + 1) * kMiB}, 2 * kMiB, 8 * kMiB, 64 * kMiB);
  }
  static ByteRange mib(uint64_t begin, uint64_t end) { return {begin * kMiB, end * kMiB}; }
  Streams streams_;
};

TEST_F(StreamsTest, RunAheadAsFarAsTheReaderHasComeUpToTheLimit) {
  EXPECT_TRUE(miss(0).empty()) << "one read is no stream";
  EXPECT_EQ(miss(1), mib(2, 4));
  // The first granule of what was run ahead over is missed on purpose: the next window follows at once.
  EXPECT_EQ(miss(2), mib(4, 7));
  EXPECT_EQ(miss(4), mib(7, 12));
  EXPECT_EQ(miss(7), mib(12, 20));
  EXPECT_EQ(miss(12), mib(20, 28)) << "the limit is 8 MiB";
}

TEST_F(StreamsTest, KeepOneWindowInUseAndOneOnItsWay) {
  miss(0);
  miss(1);
  miss(2);
  miss(4);
  EXPECT_EQ(miss(7), mib(12, 20));
  EXPECT_TRUE(miss(8).empty()) << "a reader that caught up with what is being fetched asks for nothing more";
}

TEST_F(StreamsTest, SurviveOthersInBetween) {
  EXPECT_TRUE(miss(10).empty());
  EXPECT_TRUE(miss(40).empty());
  EXPECT_EQ(miss(11), mib(12, 14));
  EXPECT_EQ(miss(41), mib(42, 44));
}

TEST_F(StreamsTest, EndWithTheDevice) {
  EXPECT_TRUE(miss(62).empty());
  EXPECT_TRUE(miss(63).empty()) << "nothing is left to run ahead over";
}

TEST_F(StreamsTest, RandomReadersHaveNoStream) {
  for (uint64_t mb : {50, 3, 44, 21, 9, 33}) EXPECT_TRUE(miss(mb).empty()) << mb;
}

}  // namespace
}  // namespace hydrant::fetch
