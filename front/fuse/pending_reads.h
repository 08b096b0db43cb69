// READ requests of the kernel that wait for the user daemon. Taking one out of here is the right to answer it, so each
// is answered exactly once, whoever comes first: the supply, the reader's death, the time limit, or the end.
#pragma once

#include <array>
#include <condition_variable>
#include <list>
#include <memory>
#include <mutex>
#include <optional>
#include <unordered_map>
#include <vector>

#include "base/byte_range.h"
#include "base/clock.h"
#include "front/fuse/blob_table.h"

namespace hydrant::front {

struct PendingRead {
  uint64_t unique = 0;
  std::shared_ptr<Blob> blob;
  ByteRange range;  // of the file: inside [0, file_size)
  std::shared_ptr<cachefiles::Cookie::Wait> wait;
  Instant since = {};  // set by insert()
};

// Thread-safe. Calls nobody, so it can be used from the engine's callbacks.
class PendingReads {
 public:
  explicit PendingReads(Duration limit) : limit_(limit) {}

  // False after `close`.
  bool insert(PendingRead read);
  std::optional<PendingRead> take(uint64_t unique);

  using Wait = std::shared_ptr<cachefiles::Cookie::Wait>;
  // Gives a read the wait that its `ensure` returned. Yields that wait back when it must be cancelled: its reader died
  // meanwhile, or it is no longer pending.
  Wait attach(uint64_t unique, Wait wait);

  // Its reader dies. Yields the wait to cancel; null when `attach` will yield it, or when the read is not here:
  // answered, about to be, or not inserted yet. The last of these is why the number is remembered for a while.
  Wait interrupt(uint64_t unique);

  // Blocks until a read is over its time limit or the table closes; yields those reads. Empty means closed.
  std::vector<PendingRead> wait_expired();

  // Refuses newcomers, ends wait_expired, yields everything.
  std::vector<PendingRead> close();

  size_t count() const;

 private:
  struct Entry {
    PendingRead read;
    Instant expires;
    bool interrupted = false;
    std::list<uint64_t>::iterator place;
  };
  PendingRead erase(std::unordered_map<uint64_t, Entry>::iterator at);  // the lock is held

  const Duration limit_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::unordered_map<uint64_t, Entry> reads_;
  std::list<uint64_t> order_;  // by time of arrival, which is the order of expiry as the limit is one for all
  // Interrupts of reads that were not here, the oldest overwritten first. An insert follows its read from the kernel by
  // microseconds, so what is lost is at worst the news of a death: the read then ends at its time limit.
  std::array<uint64_t, 64> early_{};
  size_t early_next_ = 0;
  bool closed_ = false;
};

}  // namespace hydrant::front
