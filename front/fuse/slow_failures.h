// Reads that failed after a long wait, remembered for a moment: the kernel asks again for what a read-ahead did not
// bring, once for read(2) and twice for a page fault, and each of these would wait as long.
#pragma once

#include <deque>
#include <memory>
#include <mutex>

#include "base/byte_range.h"
#include "base/clock.h"

namespace hydrant::front {

// Thread-safe.
class SlowFailures {
 public:
  using File = std::shared_ptr<const void>;  // compared, and not kept

  // How long one failure answers for the same bytes, and what a wait must have lasted to be worth it: a failure that
  // came sooner costs no more when it happens again, and may well not.
  static constexpr Duration kShared = std::chrono::seconds(1);

  // The read of `range` of a file, asked for at `since`, has failed. Before it is answered, so that the kernel's next
  // request finds it.
  void note(const File& file, const ByteRange& range, Instant since, Instant now) {
    if (now - since < kShared) return;
    std::lock_guard lock(mutex_);
    drop_old(now);
    if (failures_.size() == kMost) failures_.pop_front();
    failures_.push_back({file, range, now});
  }

  // Whether a part of `range` failed just now.
  bool cover(const File& file, const ByteRange& range, Instant now) {
    std::lock_guard lock(mutex_);
    drop_old(now);
    for (const Failure& failure : failures_)
      if (!failure.file.owner_before(file) && !file.owner_before(failure.file) &&
          !intersect(failure.range, range).empty())
        return true;
    return false;
  }

 private:
  struct Failure {
    std::weak_ptr<const void> file;
    ByteRange range;
    Instant at;
  };
  static constexpr size_t kMost = 1024;

  void drop_old(Instant now) {
    while (!failures_.empty() && now - failures_.front().at >= kShared) failures_.pop_front();
  }

  std::mutex mutex_;
  std::deque<Failure> failures_;  // by time
};

}  // namespace hydrant::front
