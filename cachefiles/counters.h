// What the kernel's front end counts (spec 10.3): since the engine began, shown by `Engine::listing`.
#pragma once

#include <atomic>
#include <cstdint>

namespace hydrant::cachefiles {

// Thread-safe; statistics only, so relaxed.
class Counter {
 public:
  void operator++() { value_.fetch_add(1, std::memory_order_relaxed); }
  uint64_t get() const { return value_.load(std::memory_order_relaxed); }

 private:
  std::atomic<uint64_t> value_{0};
};

struct Counters {
  Counter acquires, relinquishes, retires;
  Counter lru_discards, lru_postponed;
  Counter invalidations, resizes;
  Counter no_space_write, no_space_create, no_space_other;
  Counter culled;
  Counter reads, writes;  // requests to the user daemon; writes by handle or consumer
  // Granules that were hashed: as they were written, on the disk at their first use, by the scrub. And of those the
  // ones that did not match: refused, or no longer present.
  Counter verified, found, scrubbed;
  Counter refused, damaged;
};

}  // namespace hydrant::cachefiles
