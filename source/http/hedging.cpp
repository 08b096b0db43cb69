#include "source/http/hedging.h"

#include <algorithm>

namespace hydrant::source {

namespace {
constexpr size_t kEvery = 16;  // samples between two looks at all of them
constexpr double kShare = 0.02, kMostAtOnce = 3;
constexpr size_t kMostOrigins = 1024;
}  // namespace

void FirstBytes::add(Duration taken) {
  taken_[count_++ % kKept] = taken;
  allowance_ = std::min(kMostAtOnce, allowance_ + kShare);
  if (count_ < kFewest || count_ % kEvery != 0) return;
  auto sorted = taken_;
  const auto end = sorted.begin() + static_cast<ptrdiff_t>(std::min(count_, kKept));
  const auto at = [&](size_t percent) {
    return sorted.begin() + (end - sorted.begin() - 1) * ptrdiff_t(percent) / 100;
  };
  std::sort(sorted.begin(), end);
  slow_ = std::max({*at(99), 2 * *at(50), kLeast});
}

bool FirstBytes::spend() {
  if (allowance_ < 1) return false;
  allowance_ -= 1;
  return true;
}

std::optional<Duration> Hedging::slow(const std::string& origin) {
  auto origins = origins_.lock();
  auto found = origins->find(origin);
  return found == origins->end() ? std::nullopt : found->second.slow();
}

bool Hedging::spend(const std::string& origin) {
  if (!(*origins_.lock())[origin].spend()) return false;
  count_.fetch_add(1, std::memory_order_relaxed);
  return true;
}

void Hedging::answered(const std::string& origin, Duration first_byte) {
  auto origins = origins_.lock();
  // They are soon known again.
  if (origins->size() >= kMostOrigins) origins->clear();
  (*origins)[origin].add(first_byte);
}

}  // namespace hydrant::source
