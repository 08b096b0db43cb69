// A mutex of four bytes, for objects of which there are many. Not recursive, no time limits; std::lock_guard and
// std::unique_lock take it. Where a std::condition_variable is needed, std::mutex is.
#pragma once

#include <atomic>
#include <cstdint>

namespace hydrant {

class SmallMutex {
 public:
  SmallMutex() = default;
  SmallMutex(const SmallMutex&) = delete;

  void lock() {
    uint32_t state = kFree;
    if (state_.compare_exchange_strong(state, kHeld, std::memory_order_acquire)) return;
    // Whoever comes second cannot know whether he is the last, so he says that somebody waits.
    while (state_.exchange(kAwaited, std::memory_order_acquire) != kFree)
      state_.wait(kAwaited, std::memory_order_relaxed);
  }
  bool try_lock() {
    uint32_t state = kFree;
    return state_.compare_exchange_strong(state, kHeld, std::memory_order_acquire);
  }
  void unlock() {
    if (state_.exchange(kFree, std::memory_order_release) == kAwaited) state_.notify_one();
  }

 private:
  static constexpr uint32_t kFree = 0, kHeld = 1, kAwaited = 2;
  std::atomic<uint32_t> state_{kFree};
};

}  // namespace hydrant
