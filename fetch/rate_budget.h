// A limit of bytes a second, for what nobody waits for.
#pragma once

#include <algorithm>
#include <cstdint>

#include "base/clock.h"
#include "base/guarded.h"

namespace hydrant::fetch {

// Thread-safe.
class RateBudget {
 public:
  explicit RateBudget(uint64_t bytes_per_second) : rate_(bytes_per_second) {}

  // When `bytes` that came at `now` are paid for: until then whoever took them takes no more.
  Instant pay(uint64_t bytes, Instant now) {
    auto paid = paid_.lock();
    // What was not used is not saved up.
    *paid = std::max(*paid, now) +
            Duration(static_cast<int64_t>(static_cast<double>(bytes) * 1e9 / static_cast<double>(rate_)));
    return *paid;
  }

 private:
  const uint64_t rate_;
  Guarded<Instant> paid_{Instant::min()};
};

}  // namespace hydrant::fetch
