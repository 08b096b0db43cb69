#include "daemon/keeper/supervision.h"

#include <gtest/gtest.h>

#include <csignal>

namespace hydrant::daemon::keeper {
namespace {

using namespace std::chrono_literals;

class SupervisionTest : public ::testing::Test {
 protected:
  void start_both() {
    supervision_.state(Child::kHydrantd).started(10, now_);
    supervision_.state(Child::kFetchd).started(20, now_);
  }
  std::optional<int> signal_to(int pid) {
    auto signal = supervision_.signal_due(now_);
    if (!signal) return std::nullopt;
    EXPECT_EQ(signal->pid, pid);
    return signal->number;
  }
  Instant now_{1h};
  Supervision supervision_{now_};
};

TEST_F(SupervisionTest, HydrantdIsStartedFirst) {
  EXPECT_EQ(supervision_.due(now_), Child::kHydrantd);
  supervision_.state(Child::kHydrantd).started(10, now_);
  EXPECT_EQ(supervision_.due(now_), Child::kFetchd);
  supervision_.state(Child::kFetchd).started(20, now_);
  EXPECT_EQ(supervision_.due(now_), std::nullopt);
  EXPECT_EQ(supervision_.next_event(), std::nullopt);
}

TEST_F(SupervisionTest, ShortLivesDoubleTheBackoffUpToItsLimitAndALongOneResetsIt) {
  start_both();
  Duration expected = 50ms;
  for (int life = 0; life < 12; ++life) {
    supervision_.ended(20, std::nullopt, now_);
    EXPECT_EQ(supervision_.due(now_), std::nullopt);
    EXPECT_EQ(supervision_.next_event(), now_ + expected);
    now_ += expected;
    ASSERT_EQ(supervision_.due(now_), Child::kFetchd);
    supervision_.state(Child::kFetchd).started(20, now_);
    expected = std::min<Duration>(expected * 2, 5s);
  }
  now_ += 1s;
  supervision_.ended(20, std::nullopt, now_);
  ASSERT_EQ(supervision_.due(now_), Child::kFetchd) << "at once";
  supervision_.state(Child::kFetchd).started(20, now_);
  supervision_.ended(20, std::nullopt, now_);
  EXPECT_EQ(supervision_.next_event(), now_ + 50ms);
}

TEST_F(SupervisionTest, WhatAnEarlierKeeperStartedIsStartedAgainAtOnce) {
  supervision_.state(Child::kHydrantd).adopted(10, now_);
  supervision_.state(Child::kFetchd).adopted(20, now_);
  supervision_.ended(10, std::nullopt, now_);
  EXPECT_EQ(supervision_.due(now_), Child::kHydrantd);
}

TEST_F(SupervisionTest, AFailedStartCountsAsAShortLife) {
  supervision_.state(Child::kHydrantd).ended(now_);
  EXPECT_EQ(supervision_.state(Child::kHydrantd).start_at(), now_ + 50ms);
  EXPECT_EQ(supervision_.due(now_), Child::kFetchd) << "the other one is not held up";
}

TEST_F(SupervisionTest, StoppingEndsFetchdThenHydrantd) {
  start_both();
  supervision_.stop(now_);
  EXPECT_EQ(signal_to(20), SIGTERM);
  EXPECT_EQ(signal_to(20), std::nullopt) << "once";
  EXPECT_EQ(supervision_.next_event(), now_ + 10s);
  supervision_.ended(20, 0, now_);
  EXPECT_EQ(signal_to(10), SIGTERM);
  supervision_.ended(10, 0, now_);
  EXPECT_EQ(supervision_.phase(), Phase::kDone);
}

TEST_F(SupervisionTest, AChildThatIgnoresTermIsKilledAfterItsGrace) {
  start_both();
  supervision_.stop(now_);
  EXPECT_EQ(signal_to(20), SIGTERM);
  now_ += 10s;
  EXPECT_EQ(signal_to(20), SIGKILL);
  EXPECT_EQ(signal_to(20), std::nullopt);
  supervision_.ended(20, std::nullopt, now_);
  EXPECT_EQ(signal_to(10), SIGTERM);
  EXPECT_EQ(supervision_.next_event(), now_ + 10s) << "each child has a grace of its own";
}

TEST_F(SupervisionTest, ACrashOfHydrantdIsRestartedAndItsCleanEndStopsEverything) {
  start_both();
  supervision_.ended(10, std::nullopt, now_);
  EXPECT_EQ(supervision_.phase(), Phase::kRunning);
  now_ += 50ms;
  ASSERT_EQ(supervision_.due(now_), Child::kHydrantd);
  supervision_.state(Child::kHydrantd).started(11, now_);
  supervision_.ended(11, 0, now_);
  EXPECT_EQ(supervision_.due(now_ + 1h), std::nullopt);
  EXPECT_EQ(signal_to(20), SIGTERM);
  supervision_.ended(20, std::nullopt, now_);
  EXPECT_EQ(supervision_.phase(), Phase::kDone);
}

TEST_F(SupervisionTest, AChildThatRefusesItsFirstStartEndsEverythingAtOnce) {
  for (Child child : {Child::kHydrantd, Child::kFetchd}) {
    supervision_ = Supervision(now_);
    start_both();
    now_ += 100ms;
    supervision_.ended(child == Child::kHydrantd ? 10 : 20, 127, now_);
    ASSERT_TRUE(supervision_.refusal());
    EXPECT_EQ(supervision_.refusal()->child, child);
    EXPECT_EQ(supervision_.refusal()->status, 127);
    int left = child == Child::kHydrantd ? 20 : 10;
    EXPECT_EQ(supervision_.due(now_ + 1h), std::nullopt);
    EXPECT_EQ(signal_to(left), SIGTERM);
    supervision_.ended(left, 0, now_);
    EXPECT_EQ(supervision_.phase(), Phase::kDone);
  }
}

TEST_F(SupervisionTest, AnEndThatIsNoRefusalIsFollowedByAnotherLife) {
  start_both();
  supervision_.ended(20, kRootInUse, now_);    // an older daemon has it, and may go
  supervision_.ended(10, std::nullopt, now_);  // killed
  EXPECT_EQ(supervision_.phase(), Phase::kRunning);
  now_ += 50ms;
  supervision_.state(Child::kHydrantd).started(11, now_);
  supervision_.state(Child::kFetchd).started(21, now_);
  supervision_.ended(11, 10, now_);  // it has worked before: perhaps the disk comes back
  supervision_.ended(21, 1, now_);
  EXPECT_FALSE(supervision_.refusal());
  EXPECT_EQ(supervision_.phase(), Phase::kRunning);
}

TEST_F(SupervisionTest, AFailureAfterALongFirstLifeIsNoRefusal) {
  start_both();
  now_ += 10s;
  supervision_.ended(10, 10, now_);
  EXPECT_FALSE(supervision_.refusal());
  EXPECT_EQ(supervision_.phase(), Phase::kRunning);
}

TEST_F(SupervisionTest, AStopWhileNothingRunsIsDoneAtOnce) {
  supervision_.stop(now_);
  EXPECT_EQ(supervision_.phase(), Phase::kDone);
  EXPECT_EQ(supervision_.due(now_ + 1h), std::nullopt);
}

TEST_F(SupervisionTest, TheEndOfAStrangerChangesNothing) {
  start_both();
  supervision_.ended(99, 0, now_);
  EXPECT_TRUE(supervision_.state(Child::kHydrantd).running());
  EXPECT_EQ(supervision_.phase(), Phase::kRunning);
}

}  // namespace
}  // namespace hydrant::daemon::keeper
