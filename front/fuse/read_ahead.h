// Tells when a blob file is read in order, so that its disk can be kept ahead of the readers.
//
// The kernel's own read-ahead of the backing file does not see it: requests are answered by several threads, which swap
// neighbours, and it would stop at 128 KiB in any case.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>

#include "base/byte_range.h"

namespace hydrant::front {

// Thread-safe without locks: a race costs a hint too many or one too few.
class ReadAhead {
 public:
  static constexpr uint64_t kRun = 512 << 10;  // in order since: a stream
  static constexpr uint64_t kReach = 4 << 20;  // what the disk is ahead of a stream, at most; at least the half of it
  static constexpr uint64_t kDisorder = 1 << 20;  // how far behind the others a request of a stream may come

  // After a hit of `read` in a file of `size` bytes: what the disk should read now, mostly nothing.
  ByteRange next(ByteRange read, uint64_t size) {
    const uint64_t front = front_.load(std::memory_order_relaxed);
    if (read.begin > front + kDisorder || read.begin + kDisorder < front) {
      front_.store(read.end, std::memory_order_relaxed);
      run_.store(read.size(), std::memory_order_relaxed);
      edge_.store(0, std::memory_order_relaxed);
      return {};
    }
    if (read.end > front) front_.store(read.end, std::memory_order_relaxed);
    if (run_.fetch_add(read.size(), std::memory_order_relaxed) < kRun) return {};
    const uint64_t edge = std::max(edge_.load(std::memory_order_relaxed), read.end);
    const uint64_t wanted = std::min(size, read.end + kReach);
    if (edge >= wanted || edge - read.end > kReach / 2) return {};
    edge_.store(wanted, std::memory_order_relaxed);
    return {edge, wanted};
  }

 private:
  std::atomic<uint64_t> front_{0};  // end of the foremost read of the run
  std::atomic<uint64_t> run_{0};    // bytes of the run
  std::atomic<uint64_t> edge_{0};   // the disk was told to read up to here
};

}  // namespace hydrant::front
