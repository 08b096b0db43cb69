// Neighbouring granules on their way into the cache: each write is a turn to the cache and back.
#pragma once

#include <algorithm>

#include "base/bytes.h"
#include "base/check.h"
#include "fetch/transport/control.h"

namespace hydrant::fetch {

// Collects them in memory that the transport can write from, or in its own where there is none. Not thread-safe.
class GranuleBatch {
 public:
  // `capacity`: bytes, no less than a granule.
  explicit GranuleBatch(size_t capacity) : capacity_(capacity) {}

  bool empty() const { return size_ == 0; }
  bool fits(size_t more) const { return size_ + more <= capacity_; }
  uint64_t offset() const { return offset_; }
  Bytes bytes() const { return Bytes(memory_).first(size_); }

  // The first granule, at `offset` of the device. Takes memory, of `handle` if it has any.
  void begin(ObjectHandle& handle, uint64_t offset, Bytes granule) {
    HYDRANT_CHECK(empty(), "a batch is begun once");
    if (auto staging = handle.stage(capacity_)) {
      staging_ = *std::move(staging);
      memory_ = staging_.bytes();
    } else {
      own_.resize(capacity_);
      memory_ = own_;
    }
    offset_ = offset;
    add(granule);
  }
  // The next one behind it.
  void add(Bytes granule) {
    HYDRANT_CHECK(fits(granule.size()), "flush before the batch is full");
    std::copy(granule.begin(), granule.end(), memory_.begin() + static_cast<ptrdiff_t>(size_));
    size_ += granule.size();
  }
  // Gives staging memory back: others wait for it while this fill waits for its origin.
  void clear() {
    size_ = 0;
    memory_ = {};
    staging_ = {};
  }

 private:
  const size_t capacity_;
  Staging staging_;
  Buffer own_;
  MutableBytes memory_;
  uint64_t offset_ = 0;
  size_t size_ = 0;
};

}  // namespace hydrant::fetch
