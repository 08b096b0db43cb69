// Tells sequential readers of one object from random ones and says how far to run ahead of them.
//
// Only misses are seen here: a hit is answered by the cache. So that a stream that never misses still shows where it
// is, the filler holds back the first granule of each run-ahead until it is asked for (Filler::held_).
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
  // Files of a directory that are read one after the other leave gaps.
  static constexpr uint64_t kGap = 256 << 10;
  // Who has read so much without a gap reads a big file from its beginning on: windows grow faster.
  static constexpr uint64_t kLongRun = 2 << 20;
  static constexpr uint64_t kLongRunFactor = 4;

  // A miss of `read` that makes `covered` (its granules) available, and what follows up to `along` with it. Yields what
  // to run ahead over, clamped to `size`: empty for a random reader, which one is whose run is shorter than
  // `shortest_run`. Never more than `limit`, nor than the reader has already read in one go (four times that after a
  // long run without gaps): what a stream that ends wastes is bounded by what it used.
  ByteRange miss(ByteRange read, ByteRange covered, uint64_t along, uint64_t shortest_run, uint64_t limit,
                 uint64_t size) {
    ++clock_;
    for (Slot& slot : slots_) {
      if (slot.used == 0 || read.begin < slot.last || read.begin > slot.edge + kGap) continue;
      slot.used = clock_;
      if (read.begin > slot.edge) slot.gapless = false;
      // A second miss inside the very same fill says nothing about a direction.
      if (covered.end <= slot.covered) return {};
      slot.last = read.begin;
      slot.covered = covered.end;
      slot.edge = std::max({slot.edge, covered.end, along});
      uint64_t run = covered.end - slot.begin;
      uint64_t window = std::min(slot.gapless && run >= kLongRun ? kLongRunFactor * run : run, limit);
      // One window in use, one on its way.
      if (run < shortest_run || slot.edge - covered.end >= window) return {};
      ByteRange ahead = {slot.edge, std::max(slot.edge, std::min(slot.edge + window, size))};
      slot.edge = ahead.end;
      return ahead;
    }
    Slot* oldest = &slots_[0];
    for (Slot& slot : slots_)
      if (slot.used < oldest->used) oldest = &slot;
    *oldest = {.used = clock_,
               .begin = covered.begin,
               .last = read.begin,
               .covered = covered.end,
               .edge = std::max(covered.end, along)};
    return {};
  }

  // The run-ahead that was to end at `edge` ends at `end`.
  void ends_at(uint64_t edge, uint64_t end) {
    for (Slot& slot : slots_)
      if (slot.used != 0 && slot.edge == edge) slot.edge = end;
  }

 private:
  struct Slot {
    uint64_t used = 0;     // 0: free
    uint64_t begin = 0;    // where the run began
    uint64_t last = 0;     // where the latest miss began
    uint64_t covered = 0;  // end of what the latest miss makes available
    uint64_t edge = 0;     // end of the run-ahead
    bool gapless = true;   // every miss began where the one before had ended
  };
  std::array<Slot, kSlots> slots_;
  uint64_t clock_ = 0;
};

}  // namespace hydrant::fetch
