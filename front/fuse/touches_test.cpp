#include "front/fuse/touches.h"

#include <gtest/gtest.h>

#include <thread>

namespace hydrant::front {
namespace {

constexpr uint64_t kUnit = Touches::kUnit;

std::vector<ByteRange> ranges(const Touches& touches) {
  std::vector<ByteRange> out;
  for (const Touch& touch : touches.list()) out.push_back(touch.range);
  return out;
}

TEST(TouchesTest, TellWhatWasReadFirstInItsOrderAndOnce) {
  Touches touches(10 * kUnit + 4096, Clock::system().now());
  touches.note({5 * kUnit + 4096, 5 * kUnit + 8192});
  touches.note({0, kUnit + 1});
  touches.note({5 * kUnit, 6 * kUnit});
  touches.note({10 * kUnit, 10 * kUnit + 4096});
  EXPECT_EQ(ranges(touches),
            (std::vector<ByteRange>{
                {5 * kUnit, 6 * kUnit}, {0, kUnit}, {kUnit, 2 * kUnit}, {10 * kUnit, 10 * kUnit + 4096}}));
}

TEST(TouchesTest, EndAfterTheirTime) {
  Touches touches(10 * kUnit, Clock::system().now() - Touches::kWatch - std::chrono::seconds(1));
  touches.note({0, 4096});
  EXPECT_TRUE(touches.list().empty());
}

TEST(TouchesTest, AreBounded) {
  Touches touches(uint64_t{2} * Touches::kMost * kUnit, Clock::system().now());
  touches.note({0, uint64_t{2} * Touches::kMost * kUnit});
  EXPECT_EQ(touches.list().size(), Touches::kMost);
  Touches huge((Touches::kMostUnits + 1) * kUnit, Clock::system().now());
  huge.note({0, 4096});
  EXPECT_TRUE(huge.list().empty());
}

TEST(TouchesTest, ManyReadersNoteEachUnitOnce) {
  Touches touches(1000 * kUnit, Clock::system().now());
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t)
    threads.emplace_back([&, t] {
      for (uint64_t i = 0; i < 1000; ++i) {
        uint64_t unit = t % 2 ? i : 999 - i;
        touches.note({unit * kUnit, (unit + 1) * kUnit});
      }
    });
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(touches.list().size(), 1000u);
}

}  // namespace
}  // namespace hydrant::front
