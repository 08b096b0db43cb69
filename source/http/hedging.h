// When a request is asked a second time, on another connection: when it waits longer for its first byte than nearly all
// before it did at that origin. Whoever answers first serves the reader, so that one server in trouble behind an
// address of many, or one lost packet, does not cost a whole time-out.
#pragma once

#include <array>
#include <atomic>
#include <map>
#include <optional>
#include <string>

#include "base/clock.h"
#include "base/guarded.h"

namespace hydrant::source {

// How long one origin took to begin its answers, lately. Not thread-safe.
class FirstBytes {
 public:
  static constexpr size_t kKept = 256;
  static constexpr size_t kFewest = 64;  // of less nothing is concluded
  static constexpr Duration kLeast = std::chrono::milliseconds(20);

  void add(Duration taken);
  // What an answer in a hundred exceeded, at least twice the median and kLeast. Nothing: not known.
  std::optional<Duration> slow() const { return slow_; }
  // Whether one more request may be asked twice: one in fifty, three at once.
  bool spend();

 private:
  std::array<Duration, kKept> taken_{};
  size_t count_ = 0;  // of all that were added
  std::optional<Duration> slow_;
  double allowance_ = 1;
};

// For all origins. Thread-safe.
class Hedging {
 public:
  std::optional<Duration> slow(const std::string& origin);
  bool spend(const std::string& origin);
  void answered(const std::string& origin, Duration first_byte);
  // Requests that were asked twice.
  uint64_t count() const { return count_.load(std::memory_order_relaxed); }

 private:
  Guarded<std::map<std::string, FirstBytes>> origins_;
  std::atomic<uint64_t> count_{0};
};

}  // namespace hydrant::source
