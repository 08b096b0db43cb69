// Time as a value that tests can drive: nobody reads the system clock but through a Clock, and every wait has a
// Deadline.
#pragma once

#include <chrono>
#include <condition_variable>
#include <mutex>

namespace hydrant {

using Duration = std::chrono::nanoseconds;
using Instant = std::chrono::steady_clock::time_point;

// Monotonic time. Thread-safe.
class Clock {
 public:
  virtual ~Clock() = default;
  virtual Instant now() const = 0;
  static const Clock& system();
};

// Stands still until told otherwise. Thread-safe.
class ManualClock final : public Clock {
 public:
  Instant now() const override {
    std::lock_guard lock(mutex_);
    return now_;
  }
  void advance(Duration by) {
    std::lock_guard lock(mutex_);
    now_ += by;
  }

 private:
  mutable std::mutex mutex_;
  Instant now_{std::chrono::hours(1)};
};

// A point in monotonic time by which a wait ends.
class Deadline {
 public:
  static Deadline after(Duration duration, const Clock& clock = Clock::system()) {
    return Deadline(clock.now() + duration);
  }
  explicit Deadline(Instant at) : at_(at) {}

  Instant at() const { return at_; }
  bool passed(const Clock& clock = Clock::system()) const { return clock.now() >= at_; }
  // Never negative.
  Duration left(const Clock& clock = Clock::system()) const {
    const Instant now = clock.now();
    return now < at_ ? at_ - now : Duration(0);  // compared first: at_ may be the first instant there is
  }
  // For poll(2) and friends: rounded up, at least 1 while time is left, at most 24 days.
  int left_ms(const Clock& clock = Clock::system()) const {
    auto ms = std::chrono::ceil<std::chrono::milliseconds>(left(clock)).count();
    return static_cast<int>(std::min<long long>(ms, 2'000'000'000));
  }
  Deadline sooner(const Deadline& other) const { return at_ < other.at_ ? *this : other; }

 private:
  Instant at_;
};

}  // namespace hydrant
