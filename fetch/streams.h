// Tells sequential readers of one object from random ones and says how far to run ahead of them.
//
// Only misses are seen here: a hit is answered by the cache. So a reader that follows a stream shows itself again where
// the run-ahead ended, or inside it when it has caught up with fills in flight.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>

#include "base/byte_range.h"

namespace hydrant::fetch {

// Owned by one filler, under its lock.
class Streams {
 public:
  static constexpr unsigned kSlots = 8;
  static constexpr unsigned kFirstDepth = 2;  // fills ahead once a stream is seen
  static constexpr unsigned kMaxDepth = 8;
  static constexpr uint64_t kMaxAhead = 16 << 20;

  // A miss of `read` that makes `covered` (its granules) available. Yields what to run ahead over, clamped to `size`:
  // empty for a random reader. `unit` is the bytes of one fill.
  ByteRange miss(ByteRange read, ByteRange covered, uint64_t unit, uint64_t size) {
    ++clock_;
    for (Slot& slot : slots_) {
      if (slot.used == 0 || read.begin < slot.last || read.begin > slot.edge + unit) continue;
      slot.used = clock_;
      // A second miss inside the very same fill says nothing about a direction.
      if (covered.end <= slot.covered) return {};
      slot.last = read.begin;
      slot.covered = covered.end;
      slot.depth = slot.depth == 0 ? kFirstDepth : std::min(slot.depth * 2, kMaxDepth);
      uint64_t begin = std::max(slot.edge, covered.end);
      uint64_t end = std::min({covered.end + std::min(slot.depth * unit, kMaxAhead), size});
      slot.edge = std::max({slot.edge, covered.end, end});
      return {begin, std::max(begin, end)};
    }
    Slot* oldest = &slots_[0];
    for (Slot& slot : slots_)
      if (slot.used < oldest->used) oldest = &slot;
    *oldest = {.used = clock_, .last = read.begin, .covered = covered.end, .edge = covered.end, .depth = 0};
    return {};
  }

 private:
  struct Slot {
    uint64_t used = 0;     // 0: free
    uint64_t last = 0;     // where the latest miss began
    uint64_t covered = 0;  // end of what the latest miss makes available
    uint64_t edge = 0;     // end of the run-ahead
    unsigned depth = 0;
  };
  std::array<Slot, kSlots> slots_;
  uint64_t clock_ = 0;
};

}  // namespace hydrant::fetch
