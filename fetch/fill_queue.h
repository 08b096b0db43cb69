// Who works next: a fixed number of threads over a queue with four priorities, demand strictly before read-ahead before
// prefetch before background, and a share of the threads for each origin, so that one that is dead holds nobody else's.
#pragma once

#include <array>
#include <condition_variable>
#include <deque>
#include <memory>
#include <mutex>
#include <stop_token>
#include <string>
#include <thread>
#include <unordered_map>
#include <vector>

#include "base/clock.h"
#include "base/error.h"
#include "base/unique_function.h"

namespace hydrant::fetch {

// Of a reader that waits; of a stream that has begun; of what a reader will probably ask for; of all the rest.
enum class Priority { kDemand, kAhead, kPrefetch, kBackground };

// Thread-safe. The queue is bounded by its users: one entry for each granule that somebody misses, and a few for each
// stream.
class FillQueue {
 public:
  // `workers`: 1..256. Read-ahead and prefetch get at most a quarter of them (one at least), so demand never waits for
  // either. Background work runs only while nothing else does and nobody has demanded anything for `quiet` (what it has
  // on its way would be in front of the next demand), two at a time, and gives way: its token stops as soon as demand
  // is submitted, and it is expected to submit itself again.
  explicit FillQueue(unsigned workers, Duration quiet = std::chrono::milliseconds(500));
  ~FillQueue();

  class Entry;
  using Ticket = std::shared_ptr<Entry>;

  // Runs `work` once, not before `not_before`. The work gets a token that stops when the queue does; null when it has.
  // `origin` names who may keep the work waiting: it takes a worker only while more are idle than it has already, so
  // the first gets half of them, and one is left for the next whatever the others do. Empty: nobody.
  Ticket submit(Priority priority, UniqueFunction<void(std::stop_token)> work, Instant not_before = Instant::min(),
                std::string origin = {});
  // What is queued becomes demand; of no effect on what runs already.
  void promote(const Ticket& ticket);
  // Drops what is queued, asks what runs to end and waits for it. Idempotent; for the queue's owner alone.
  void stop();

  size_t queued() const;

 private:
  void run();
  Ticket take(std::unique_lock<std::mutex>& lock);
  void make_way(std::unique_lock<std::mutex>& lock);
  bool in_share(std::unique_lock<std::mutex>& lock, const Entry& entry) const;

  mutable std::mutex mutex_;
  std::condition_variable wake_;
  std::array<std::deque<Ticket>, 4> queued_;  // by priority
  unsigned running_ = 0, undemanded_running_ = 0, background_running_ = 0;
  std::unordered_map<std::string, unsigned> origin_running_;
  Instant demanded_ = Instant::min();  // when demand was last submitted, or had been met
  const unsigned workers_, undemanded_limit_;
  const Duration quiet_;
  std::stop_source stop_, way_;  // of everything; of the background work that runs
  std::vector<std::jthread> threads_;
};

// A budget of bytes that fills in flight may hold. A request larger than the budget is granted when it is alone.
// All but demand may use half. Thread-safe.
class MemoryBudget {
 public:
  explicit MemoryBudget(uint64_t bytes) : limit_(bytes) {}

  // Gives the bytes back when destroyed.
  class Share {
   public:
    Share() = default;
    Share(MemoryBudget* budget, uint64_t bytes) : budget_(budget), bytes_(bytes) {}
    Share(Share&& other) noexcept : budget_(std::exchange(other.budget_, nullptr)), bytes_(other.bytes_) {}
    Share& operator=(Share&&) = delete;
    ~Share() {
      if (budget_) budget_->give_back(bytes_);
    }

   private:
    MemoryBudget* budget_ = nullptr;
    uint64_t bytes_ = 0;
  };

  // kTooSlow at the deadline, kCancelled when stopped.
  Result<Share> take(uint64_t bytes, Priority priority, Deadline deadline, std::stop_token stop);

  uint64_t used() const;
  uint64_t peak() const;

 private:
  void give_back(uint64_t bytes);

  const uint64_t limit_;
  mutable std::mutex mutex_;
  std::condition_variable_any freed_;
  uint64_t used_ = 0;
  uint64_t peak_ = 0;
  unsigned demand_waiting_ = 0;
};

}  // namespace hydrant::fetch
