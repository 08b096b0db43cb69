#include "front/fuse/pending_reads.h"

#include <gtest/gtest.h>

namespace hydrant::front {
namespace {

struct CountingWait final : cachefiles::Cookie::Wait {
  void cancel() override { ++cancelled; }
  int cancelled = 0;
};

PendingRead read_of(uint64_t unique) {
  return {.unique = unique, .blob = nullptr, .range = {0, 4096}, .wait = nullptr};
}

TEST(PendingReads, AnInterruptYieldsTheWaitOfItsRead) {
  PendingReads pending(std::chrono::seconds(60));
  auto wait = std::make_shared<CountingWait>();
  ASSERT_TRUE(pending.insert(read_of(4)));
  EXPECT_EQ(pending.attach(4, wait), nullptr);
  EXPECT_EQ(pending.interrupt(6), nullptr);
  EXPECT_EQ(pending.interrupt(4), wait);
}

TEST(PendingReads, AnInterruptBeforeItsReadIsInsertedIsNotLost) {
  PendingReads pending(std::chrono::seconds(60));
  auto wait = std::make_shared<CountingWait>();
  EXPECT_EQ(pending.interrupt(4), nullptr);
  ASSERT_TRUE(pending.insert(read_of(4)));
  EXPECT_EQ(pending.attach(4, wait), wait);
  ASSERT_TRUE(pending.insert(read_of(6)));
  EXPECT_EQ(pending.attach(6, wait), nullptr);
}

TEST(PendingReads, InterruptsOfAnsweredReadsAreForgottenInTime) {
  PendingReads pending(std::chrono::seconds(60));
  EXPECT_EQ(pending.interrupt(4), nullptr);
  for (uint64_t unique = 100; unique < 200; ++unique) EXPECT_EQ(pending.interrupt(unique), nullptr);
  ASSERT_TRUE(pending.insert(read_of(4)));
  EXPECT_EQ(pending.attach(4, std::make_shared<CountingWait>()), nullptr);
}

}  // namespace
}  // namespace hydrant::front
