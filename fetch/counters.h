// What fetching one object has cost and why it failed, since this daemon started.
#pragma once

#include <atomic>
#include <cstdint>
#include <map>
#include <string>

#include "base/error.h"
#include "base/guarded.h"

namespace hydrant::fetch {

// Thread-safe. The sums are read for people only, so relaxed order does.
class Counters {
 public:
  std::atomic<uint64_t> fetched_bytes{0};  // stored bytes asked of the origin and received
  std::atomic<uint64_t> fills{0};          // finished, read-ahead included
  std::atomic<uint64_t> ahead_fills{0};
  std::atomic<uint64_t> prefetch_fills{0};
  std::atomic<uint64_t> retries{0};
  std::atomic<uint64_t> refetches{0};  // after bytes that did not match their digest

  // Of reads that ended without data.
  void count_failure(Code code) { ++(*failures_.lock())[std::string(to_string(code))]; }
  std::map<std::string, uint64_t> failures() const { return *failures_.lock(); }

 private:
  mutable Guarded<std::map<std::string, uint64_t>> failures_;
};

}  // namespace hydrant::fetch
