// Makes ranges of one open object available: one fetch for each granule however many readers wait for it.
#pragma once

#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>
#include <vector>

#include "fetch/counters.h"
#include "fetch/fill_queue.h"
#include "fetch/granule_batch.h"
#include "fetch/origin.h"
#include "fetch/rate_budget.h"
#include "fetch/streams.h"
#include "fetch/strides.h"
#include "fetch/transport/control.h"

namespace hydrant::fetch {

struct FillOptions {
  Duration reader_deadline = std::chrono::seconds(60);      // a read has an answer by then
  Duration first_backoff = std::chrono::milliseconds(100);  // doubles with each attempt
  Duration longest_backoff = std::chrono::seconds(2);
  Duration attach_deadline = std::chrono::seconds(2);  // writes refused with ENOBUFS are repeated so long
  Duration fresh = std::chrono::seconds(1);            // see Filler::filled_at_
  size_t most_filled = 256 << 10;                      // granules there; beyond it those that are not fresh go
  unsigned attempts = 40;                              // of one fill, within the deadline
  uint64_t fill_unit = 2 << 20;                        // device bytes of one demand fill; a power of two
  uint64_t prefetch_unit = 4 << 20;                    // the same of one that no reader waits for
  // A miss within `near` bytes of what was wanted before takes `along` bytes behind it with it.
  struct Locality {
    uint64_t near, along;
  };
  Locality of_many_files = {1 << 20, 1 << 20}, of_one_file = {64 << 10, 64 << 10};
  uint64_t shortest_run = 512 << 10;  // a reader that has read so much in order is a stream
  uint64_t longest_ahead = 64 << 20;  // device bytes of one run-ahead, which is one request to the origin
  Duration ahead_time = std::chrono::milliseconds(250);  // what a run-ahead may take at the speed seen so far
  unsigned ahead_latencies = 16;                 // or as many times what a request takes to begin, when that is longer
  Duration held_time = std::chrono::seconds(1);  // see Filler::held_
  uint64_t background_unit = 8 << 20;            // device bytes of one step of complete()
  Duration background_pass = std::chrono::seconds(1);    // between two looks for what is missing
  Duration background_pause = std::chrono::seconds(30);  // after a fill that failed
};

// What all fillers of a daemon share. Outlives them.
struct FillShop {
  FillQueue& queue;
  MemoryBudget& memory;
  FillOptions options;
  RateBudget* undemanded = nullptr;  // of prefetch and background; null: no limit
};

// A granule goes: unknown -> claimed (by one flight, queued or running) -> filled (or held, then filled), or back to
// unknown when the flight fails. What an earlier daemon filled is unknown too: nobody asks for it, and filling it again
// writes the same bytes.
//
// Work that waits in the queue holds no filler: what is not demand may wait for as long as others demand, and a filler
// holds its origin's descriptors and its layout.
//
// Thread-safe. Lock order: the filler's, then the queue's. `done` and the handle are called without either.
class Filler : public std::enable_shared_from_this<Filler> {
 public:
  using Done = UniqueFunction<void(Result<>)>;

  static std::shared_ptr<Filler> create(const FillShop& shop, std::string name, std::shared_ptr<ObjectHandle> handle,
                                        std::shared_ptr<Origin> origin, std::shared_ptr<Counters> counters);
  ~Filler();

  // Calls `done` exactly once, from any thread, possibly before returning: success when every byte of `range` is
  // written, kTooSlow at the reader's deadline, kCancelled after close(), else why the origin could not supply it.
  void read(ByteRange range, Done done);

  // Fetches what of `wanted` the cache does not have yet, in this order, behind everything that readers and their
  // streams ask for; failures are nobody's. Returns at once.
  void prefetch(std::vector<ByteRange> wanted);

  // Fetches all that the cache does not have, while nobody wants anything else of the daemon. `done` is called when
  // that is so, and never after close(). What fails is tried again later.
  void complete(UniqueFunction<void()> done);

  // Fails the readers whose deadline has passed while no worker could attend to them.
  void expire();

  // Fails every reader with kCancelled, stops what is under way and lets go of the handle. Idempotent.
  void close();

 private:
  struct Waiter;
  struct Flight;
  struct Claim {
    std::shared_ptr<Flight> flight;
    std::vector<std::shared_ptr<Waiter>> waiters;
  };
  using Lock = std::unique_lock<std::mutex>;
  using WaiterPtr = std::shared_ptr<Waiter>;  // shared by the claims of its granules
  using FlightPtr = std::shared_ptr<Flight>;  // shared by its claims and its queue entry
  using Finished = std::vector<Done>;

  Filler(const FillShop& shop, std::string name, std::shared_ptr<ObjectHandle> handle, std::shared_ptr<Origin> origin,
         std::shared_ptr<Counters> counters);

  void load_layout();
  Result<std::shared_ptr<const image::Layout>> layout();
  bool known(Lock& lock, uint64_t index) const;
  void submit_prefetch(std::vector<ByteRange> wanted, Deadline deadline, Instant not_before);
  void plan_prefetch(const std::vector<ByteRange>& wanted, Deadline deadline);
  void look_first(Lock& lock, const WaiterPtr& waiter);
  void look(const WaiterPtr& waiter);
  void claim_prefetch(Lock& lock, ByteRange hole, Priority priority);
  static std::vector<ByteRange> joined(const image::Layout& layout, const std::vector<ByteRange>& ranges);
  Result<std::vector<ByteRange>> holes(ObjectHandle& handle, ByteRange range);
  void go_on(uint64_t from, bool found, Instant not_before);
  void step(uint64_t from, bool found);
  void admit(Lock& lock, const WaiterPtr& waiter, Finished& finished);
  uint64_t end_as_piece(Lock& lock, uint64_t border);
  uint64_t claim_run(Lock& lock, ByteRange run);
  const FillOptions::Locality& locality() const;
  bool near_others(Lock& lock, ByteRange run) const;
  uint64_t reach(Lock& lock, uint64_t from, uint64_t most) const;
  bool extend_queued(Lock& lock, ByteRange piece);
  uint64_t run_ahead(Lock& lock, ByteRange range);
  void claim_ahead(Lock& lock, ByteRange range, bool piece);
  uint64_t ahead_limit(Lock& lock) const;
  void submit(Lock& lock, const FlightPtr& flight, Instant not_before);
  FlightPtr add_flight(Lock& lock, ByteRange wanted, Priority priority, Buffer ready = {});
  void release_held(Lock& lock, uint64_t index, Priority priority);
  void run(const FlightPtr& flight, std::stop_token queue_stop);
  Result<> attempt(const FlightPtr& flight, const image::Layout& layout, const image::Fill& fill, Deadline deadline,
                   std::stop_token stop);
  Result<> deliver(const FlightPtr& flight, Bytes bytes, uint64_t offset);
  bool awaited(const GranuleBatch& batch);
  bool awaited(Lock& lock, const FlightPtr& flight) const;
  Result<> pay(const FlightPtr& flight, uint64_t bytes, std::stop_token stop);
  bool hold(const FlightPtr& flight, Bytes bytes, uint64_t offset);
  Result<std::shared_ptr<ObjectHandle>> open_handle();
  Result<> write(Bytes bytes, uint64_t offset);
  void wrote(const FlightPtr& flight, ByteRange written);
  bool again(Lock& lock, const FlightPtr& flight, const Error& error, std::vector<WaiterPtr>& failed);
  void settle(Lock& lock, const WaiterPtr& waiter, Finished& finished);
  void fail_claims(Lock& lock, const FlightPtr& flight, std::vector<WaiterPtr>& failed);
  Deadline flight_deadline(Lock& lock, const FlightPtr& flight) const;
  void finish(const WaiterPtr& waiter, const Error& error);

  const FillShop& shop_;
  const std::string name_;
  const std::shared_ptr<Origin> origin_;      // the daemon keeps its description
  const std::string place_;                   // the origin's
  const std::shared_ptr<Counters> counters_;  // outlive the object's being open
  std::stop_source stop_;

  std::mutex mutex_;
  std::condition_variable_any joined_;    // a reader waits for granules that are on their way
  std::shared_ptr<ObjectHandle> handle_;  // null once closed; calls in progress hold it too
  std::shared_ptr<const image::Layout> layout_;
  bool loading_ = false;
  std::vector<WaiterPtr> early_;                // came before the layout
  std::unordered_map<uint64_t, Claim> claims_;  // by granule
  // When this filler wrote a granule. A READ for it that comes at once has crossed the write on its way, mostly: the
  // cache is asked what it has (look()). A later one means that the cache has lost the bytes, and fetches again. That a
  // granule is not here says nothing: of very large objects the old ones are forgotten.
  std::unordered_map<uint64_t, Instant> filled_at_;
  // The first granule of a run-ahead, proven and kept here until somebody asks for it: a reader in full stride has only
  // hits, and this one miss, answered from memory, says that it has come so far. Written all the same after held_time.
  struct Held {
    Buffer bytes;
    Instant since;
  };
  std::unordered_map<uint64_t, Held> held_;
  Streams streams_;
  Strides strides_;
  UniqueFunction<void()> completed_;  // of complete(); empty: not asked for, or done
  bool background_failed_ = false;    // since the last step
  Duration latency_{0};               // from a request to its first byte; 0: not known
  uint64_t speed_ = 0;                // device bytes a second, of the fills so far; 0: not known
};

}  // namespace hydrant::fetch
