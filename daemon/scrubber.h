// Hashes again what the cache holds of objects in use, while nobody reads: bits that flipped on the disk are found and
// fetched anew, and what an unclean end left unproven is proven.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <stop_token>
#include <thread>
#include <vector>

#include "base/clock.h"
#include "cachefiles/engine.h"

namespace hydrant::daemon {

struct ScrubberOptions {
  Duration first = std::chrono::minutes(1);  // from the start to the first pass, restart
  Duration every = std::chrono::hours(24);   // from the end of a pass to the next one; 0: never, restart
  uint64_t rate = 16 << 20;                  // bytes a second at most; above 0, restart
};

// Thread-safe. Its thread has the lowest priority for processors and disks.
class Scrubber {
 public:
  using Live = std::function<std::vector<std::shared_ptr<cachefiles::Cookie>>()>;
  using Busy = std::function<bool()>;  // somebody waits for bytes just now

  Scrubber(ScrubberOptions options, Live live, Busy busy);
  ~Scrubber() { stop(); }

  // Ends what is under way, soon.
  void stop() { thread_.request_stop(); }

  struct Stat {
    uint64_t passes = 0;   // that went through to their end
    int64_t ended_at = 0;  // the last of them, seconds since 1970; 0: none
  };
  Stat stat() const { return {passes_.load(), ended_at_.load()}; }

 private:
  void run(const std::stop_token& stop);
  bool pass(cachefiles::Cookie& cookie, const std::stop_token& stop);

  const ScrubberOptions options_;
  const Live live_;
  const Busy busy_;
  std::atomic<uint64_t> passes_{0};
  std::atomic<int64_t> ended_at_{0};
  std::jthread thread_;  // last: starts when the rest stands
};

}  // namespace hydrant::daemon
