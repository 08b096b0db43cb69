// Tells readers that go on at one distance (a column of a table, one tensor of each layer) from random ones.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <vector>

#include "base/byte_range.h"

namespace hydrant::fetch {

// As with streams, only misses are seen: a run that is fetched ahead shows itself again where it ends. Owned by one
// filler, under its lock.
class Strides {
 public:
  static constexpr size_t kRemembered = 16;         // misses, of all readers
  static constexpr uint64_t kShortest = 256 << 10;  // a smaller distance is a stream's matter
  static constexpr uint64_t kFirstRun = 4, kLongestRun = 32;

  // A miss of `read`. The places to fetch ahead, in order, none beyond `size`: those that follow four at the same
  // distance, exactly, and twice as many each time that a run was used up.
  std::vector<ByteRange> miss(ByteRange read, uint64_t size) {
    uint64_t stride = 0, places = kFirstRun;
    for (Run& run : runs_)
      if (run.stride > 0 && run.next == read.begin) {
        stride = run.stride;
        places = std::min(2 * run.places, kLongestRun);
        run = {};
      }
    uint64_t distance = UINT64_MAX;  // to the nearest before it: what a stream misses is at many distances
    for (uint64_t before : begins_)
      if (before < read.begin) distance = std::min(distance, read.begin - before);
    auto missed = [&](uint64_t steps) {
      return steps * distance <= read.begin &&
             std::ranges::find(begins_, read.begin - steps * distance) != begins_.end();
    };
    if (stride == 0 && distance >= kShortest && distance < size && missed(2) && missed(3)) stride = distance;
    begins_[count_++ % kRemembered] = read.begin;
    std::vector<ByteRange> out;
    if (stride == 0) return out;
    uint64_t at = read.begin + stride;
    for (; out.size() < places && at < size; at += stride) out.push_back({at, std::min(at + read.size(), size)});
    runs_[ran_++ % runs_.size()] = {at, stride, places};
    return out;
  }

 private:
  struct Run {
    uint64_t next = 0, stride = 0, places = 0;  // stride 0: free
  };
  std::array<uint64_t, kRemembered> begins_ = [] {
    std::array<uint64_t, kRemembered> none{};
    none.fill(UINT64_MAX);
    return none;
  }();
  std::array<Run, 4> runs_;
  size_t count_ = 0, ran_ = 0;
};

}  // namespace hydrant::fetch
