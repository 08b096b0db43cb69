#include "fetch/rate_budget.h"

#include <gtest/gtest.h>

namespace hydrant::fetch {
namespace {

using namespace std::chrono_literals;

TEST(RateBudget, IsPaidInTimeAndNotSavedUp) {
  RateBudget budget(1000);
  const Instant now{1h};
  EXPECT_EQ(budget.pay(500, now), now + 500ms);
  EXPECT_EQ(budget.pay(500, now), now + 1s) << "whoever else takes some pays behind the first";
  EXPECT_EQ(budget.pay(100, now + 10s), now + 10s + 100ms);
}

}  // namespace
}  // namespace hydrant::fetch
