#include "fetch/fill_queue.h"

#include <gtest/gtest.h>

#include <future>

namespace hydrant::fetch {
namespace {

using namespace std::chrono_literals;

TEST(FillQueue, ReadAheadLeavesMostOfTheWorkersToDemand) {
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
  EXPECT_LE(ahead, 1);
  gate.set_value();
}

TEST(FillQueue, BackgroundWaitsUntilNobodyHasDemandedAnythingForAWhile) {
  constexpr Duration kQuiet = 50ms;
  std::promise<Instant> demanded, begun;
  FillQueue queue(4, kQuiet);  // last: joins before the rest goes
  queue.submit(Priority::kDemand, [&](std::stop_token) { demanded.set_value(Clock::system().now()); });
  queue.submit(Priority::kBackground, [&](std::stop_token) { begun.set_value(Clock::system().now()); });
  EXPECT_GE(begun.get_future().get() - demanded.get_future().get(), kQuiet);
}

TEST(FillQueue, OriginsThatHangLeaveWorkersToOthers) {
  std::promise<void> gate;
  auto open = gate.get_future().share();
  std::promise<void> healthy;
  FillQueue queue(8);  // last: joins before the rest goes
  for (const char* dead : {"dead", "dead too"})
    for (int i = 0; i < 20; ++i)
      queue.submit(
          Priority::kDemand, [&](std::stop_token) { open.wait(); }, Instant::min(), dead);
  queue.submit(
      Priority::kDemand, [&](std::stop_token) { healthy.set_value(); }, Instant::min(), "healthy");
  EXPECT_EQ(healthy.get_future().wait_for(20s), std::future_status::ready);
  gate.set_value();
}

TEST(FillQueue, AnOriginsQueuedWorkRunsWhenItsShareIsFreeAgain) {
  constexpr int kWorks = 200;
  std::atomic<int> left{kWorks}, running{0}, most{0};
  std::promise<void> all;
  FillQueue queue(4);
  for (int i = 0; i < kWorks; ++i)
    queue.submit(
        Priority::kDemand,
        [&](std::stop_token) {
          int now = ++running;
          for (int seen = most; seen < now && !most.compare_exchange_weak(seen, now);) {
          }
          std::this_thread::yield();
          --running;
          if (--left == 0) all.set_value();
        },
        Instant::min(), "origin");
  EXPECT_EQ(all.get_future().wait_for(20s), std::future_status::ready);
  EXPECT_LE(most, 2);
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

}  // namespace
}  // namespace hydrant::fetch
