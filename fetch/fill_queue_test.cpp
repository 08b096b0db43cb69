#include "fetch/fill_queue.h"

#include <gtest/gtest.h>

#include <future>

#include "fetch/streams.h"

namespace hydrant::fetch {
namespace {

using namespace std::chrono_literals;

TEST(FillQueue, ReadAheadLeavesHalfOfTheWorkersToDemand) {
  std::promise<void> gate;
  auto open = gate.get_future().share();
  std::atomic<int> ahead{0};
  std::promise<void> demand;
  FillQueue queue(4);  // last: joins before the rest goes
  for (int i = 0; i < 8; ++i)
    queue.submit(Priority::kAhead, [&](std::stop_token) {
      ++ahead;
      open.wait();
    });
  queue.submit(Priority::kDemand, [&](std::stop_token) { demand.set_value(); });
  ASSERT_EQ(demand.get_future().wait_for(20s), std::future_status::ready);
  EXPECT_LE(ahead, 2);
  gate.set_value();
}

TEST(FillQueue, PostponedWorkLetsOthersPass) {
  std::promise<void> soon;
  std::atomic<bool> late{false};
  FillQueue queue(1);
  queue.submit(
      Priority::kDemand, [&](std::stop_token) { late = true; }, Clock::system().now() + 1h);
  queue.submit(Priority::kDemand, [&](std::stop_token) { soon.set_value(); });
  EXPECT_EQ(soon.get_future().wait_for(20s), std::future_status::ready);
  EXPECT_EQ(queue.queued(), 1U);
  queue.stop();
  EXPECT_FALSE(late);
}

TEST(FillQueue, StoppingDropsWhatIsQueued) {
  auto owned = std::make_shared<int>(1);
  std::weak_ptr<int> seen = owned;
  std::promise<void> started;
  FillQueue queue(1);
  queue.submit(Priority::kDemand, [&](std::stop_token stop) {
    started.set_value();
    while (!stop.stop_requested()) std::this_thread::yield();
  });
  started.get_future().wait();
  queue.submit(Priority::kDemand, [owned](std::stop_token) {});
  owned.reset();
  queue.stop();
  EXPECT_TRUE(seen.expired());
}

TEST(MemoryBudget, ALoneRequestMayExceedItAndOthersWait) {
  MemoryBudget budget(100);
  auto soon = [] { return Deadline::after(20ms); };
  {
    auto large = budget.take(500, Priority::kDemand, soon(), {});
    ASSERT_TRUE(large);
    EXPECT_EQ(budget.take(1, Priority::kDemand, soon(), {}).error().code, Code::kTooSlow);
  }
  auto first = budget.take(60, Priority::kDemand, soon(), {});
  ASSERT_TRUE(first);
  EXPECT_FALSE(budget.take(10, Priority::kAhead, soon(), {})) << "read-ahead has half of it";
  EXPECT_TRUE(budget.take(40, Priority::kDemand, soon(), {}));
}

TEST(Streams, GrowWithASequentialReaderUpToTheirLimit) {
  Streams streams;
  constexpr uint64_t kUnit = 2 << 20, kSize = 1 << 30;
  auto miss = [&](uint64_t at) { return streams.miss({at, at + 4096}, {at, at + kUnit}, kUnit, kSize); };
  EXPECT_TRUE(miss(0).empty());
  ByteRange ahead = miss(kUnit);
  EXPECT_EQ(ahead, (ByteRange{2 * kUnit, 4 * kUnit}));
  ahead = miss(ahead.end);
  EXPECT_EQ(ahead, (ByteRange{5 * kUnit, 9 * kUnit}));
  ahead = miss(ahead.end);
  EXPECT_EQ(ahead, (ByteRange{10 * kUnit, 18 * kUnit}));
  ahead = miss(ahead.end);
  EXPECT_EQ(ahead.size(), Streams::kMaxAhead);
}

TEST(Streams, SurviveOthersInBetweenAndEndWithTheDevice) {
  Streams streams;
  constexpr uint64_t kUnit = 1 << 20, kSize = 64 << 20;
  auto miss = [&](uint64_t mb) {
    return streams.miss({mb << 20, (mb << 20) + 1}, {mb << 20, (mb + 1) << 20}, kUnit, kSize);
  };
  EXPECT_TRUE(miss(10).empty());
  EXPECT_TRUE(miss(40).empty());
  EXPECT_FALSE(miss(11).empty());
  EXPECT_FALSE(miss(41).empty());
  EXPECT_TRUE(miss(62).empty());
  EXPECT_TRUE(miss(63).empty()) << "nothing is left to run ahead over";
}

}  // namespace
}  // namespace hydrant::fetch
