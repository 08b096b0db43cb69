#include "front/fuse/slow_failures.h"

#include <gtest/gtest.h>

namespace hydrant::front {
namespace {

using namespace std::chrono_literals;

const Instant kStart{1h};
const SlowFailures::File kFile = std::make_shared<int>(), kOther = std::make_shared<int>();

TEST(SlowFailures, AnswerForTheSameBytesForASecond) {
  SlowFailures failures;
  failures.note(kFile, {4096, 8192}, kStart, kStart + 60s);
  EXPECT_TRUE(failures.cover(kFile, {0, 4097}, kStart + 60s));
  EXPECT_TRUE(failures.cover(kFile, {8191, 9000}, kStart + 60s + 999ms));
  EXPECT_FALSE(failures.cover(kFile, {0, 4096}, kStart + 60s)) << "other bytes";
  EXPECT_FALSE(failures.cover(kOther, {4096, 8192}, kStart + 60s)) << "another file";
  EXPECT_FALSE(failures.cover(kFile, {4096, 8192}, kStart + 61s)) << "over";
}

TEST(SlowFailures, AFailureThatCameSoonIsTriedAgain) {
  SlowFailures failures;
  failures.note(kFile, {0, 4096}, kStart, kStart + 999ms);
  EXPECT_FALSE(failures.cover(kFile, {0, 4096}, kStart + 999ms));
}

TEST(SlowFailures, ManyAtOnceForgetTheOldest) {
  SlowFailures failures;
  for (uint64_t i = 0; i < 2000; ++i) failures.note(kFile, {i, i + 1}, kStart, kStart + 2s);
  EXPECT_FALSE(failures.cover(kFile, {0, 1}, kStart + 2s));
  EXPECT_TRUE(failures.cover(kFile, {1999, 2000}, kStart + 2s));
}

}  // namespace
}  // namespace hydrant::front
