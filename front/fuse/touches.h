// Which parts of a blob file were read in its first minutes, in their order: what a start of the image needs.
#pragma once

#include <atomic>
#include <cstdint>
#include <mutex>
#include <vector>

#include "base/byte_range.h"
#include "base/clock.h"

namespace hydrant::front {

struct Touch {
  ByteRange range;   // of the file, whole units but for the last
  Duration after{};  // since the file was made
};

// Thread-safe. `note` takes neither a lock nor the time for what was noted before.
class Touches {
 public:
  static constexpr uint64_t kUnit = 64 << 10;      // bytes that are told apart
  static constexpr uint64_t kMostUnits = 1 << 20;  // of a file: larger ones are not watched
  static constexpr size_t kMost = 16384;           // units remembered
  static constexpr Duration kWatch = std::chrono::minutes(2);

  Touches(uint64_t size, Instant begin) : size_(size), begin_(begin) {
    const uint64_t units = round_up(size, kUnit) / kUnit;
    if (units <= kMostUnits) seen_ = std::vector<std::atomic<uint64_t>>((units + 63) / 64);
    over_.store(seen_.empty(), std::memory_order_relaxed);
  }

  // `range` is inside the file and not empty.
  void note(ByteRange range) {
    if (over_.load(std::memory_order_relaxed)) return;
    for (uint64_t unit = range.begin / kUnit; unit * kUnit < range.end; ++unit) {
      std::atomic<uint64_t>& word = seen_[unit / 64];
      const uint64_t bit = uint64_t{1} << (unit % 64);
      if (word.load(std::memory_order_relaxed) & bit || word.fetch_or(bit, std::memory_order_relaxed) & bit) continue;
      add(unit, Clock::system().now());
    }
  }

  std::vector<Touch> list() const {
    std::lock_guard lock(mutex_);
    return touches_;
  }

 private:
  void add(uint64_t unit, Instant now) {
    std::lock_guard lock(mutex_);
    if (now - begin_ > kWatch || touches_.size() >= kMost) return over_.store(true, std::memory_order_relaxed);
    touches_.push_back({{unit * kUnit, std::min((unit + 1) * kUnit, size_)}, now - begin_});
  }

  const uint64_t size_;
  const Instant begin_;
  std::vector<std::atomic<uint64_t>> seen_;  // a bit for each unit
  std::atomic<bool> over_{false};            // nothing is noted any more
  mutable std::mutex mutex_;
  std::vector<Touch> touches_;
};

}  // namespace hydrant::front
