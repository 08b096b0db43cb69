#include "fetch/fill_queue.h"

#include <pthread.h>

#include <algorithm>

namespace hydrant::fetch {

class FillQueue::Entry {
 public:
  Priority priority;
  Instant not_before;
  std::string origin;
  UniqueFunction<void(std::stop_token)> work;
};

FillQueue::FillQueue(unsigned workers) : workers_(workers), ahead_limit_(std::max(1U, workers / 4)) {
  threads_.reserve(workers);
  for (unsigned i = 0; i < workers; ++i)
    threads_.emplace_back([this] {
      pthread_setname_np(pthread_self(), "fill");
      run();
    });
}

FillQueue::~FillQueue() { stop(); }

FillQueue::Ticket FillQueue::submit(Priority priority, UniqueFunction<void(std::stop_token)> work, Instant not_before,
                                    std::string origin) {
  auto ticket = std::make_shared<Entry>();
  ticket->priority = priority;
  ticket->not_before = not_before;
  ticket->origin = std::move(origin);
  ticket->work = std::move(work);
  {
    std::lock_guard lock(mutex_);
    if (stop_.stop_requested()) return nullptr;
    (priority == Priority::kDemand ? demand_ : ahead_).push_back(ticket);
  }
  wake_.notify_one();
  return ticket;
}

void FillQueue::promote(const Ticket& ticket) {
  {
    std::lock_guard lock(mutex_);
    auto at = std::find(ahead_.begin(), ahead_.end(), ticket);
    if (at == ahead_.end()) return;
    ahead_.erase(at);
    ticket->priority = Priority::kDemand;
    ticket->not_before = Instant::min();
    demand_.push_back(ticket);
  }
  wake_.notify_one();
}

void FillQueue::stop() {
  std::deque<Ticket> dropped_demand, dropped_ahead;  // destroyed without the lock: work may own much
  {
    std::lock_guard lock(mutex_);
    stop_.request_stop();
    dropped_demand.swap(demand_);
    dropped_ahead.swap(ahead_);
  }
  // Whoever queued the work may hold its ticket, and the work may hold them.
  for (auto* dropped : {&dropped_demand, &dropped_ahead})
    for (const Ticket& ticket : *dropped) ticket->work = {};
  wake_.notify_all();
  threads_.clear();
}

size_t FillQueue::queued() const {
  std::lock_guard lock(mutex_);
  return demand_.size() + ahead_.size();
}

bool FillQueue::in_share(std::unique_lock<std::mutex>&, const Entry& entry) const {
  if (entry.origin.empty()) return true;
  auto running = origin_running_.find(entry.origin);
  return running == origin_running_.end() || running->second < workers_ - running_;
}

// Waits for an entry that may run now; null when stopped.
FillQueue::Ticket FillQueue::take(std::unique_lock<std::mutex>& lock) {
  for (;;) {
    if (stop_.stop_requested()) return nullptr;
    Instant next = Instant::max();
    Instant now = Clock::system().now();
    auto first_ready = [&](std::deque<Ticket>& queue) -> Ticket {
      for (auto at = queue.begin(); at != queue.end(); ++at) {
        if ((*at)->not_before <= now) {
          if (!in_share(lock, **at)) continue;
          Ticket ticket = std::move(*at);
          queue.erase(at);
          return ticket;
        }
        next = std::min(next, (*at)->not_before);
      }
      return nullptr;
    };
    if (auto ticket = first_ready(demand_)) return ticket;
    if (ahead_running_ < ahead_limit_)
      if (auto ticket = first_ready(ahead_)) {
        ++ahead_running_;
        return ticket;
      }
    if (next == Instant::max())
      wake_.wait(lock);
    else
      wake_.wait_until(lock, next);
  }
}

void FillQueue::run() {
  std::unique_lock lock(mutex_);
  while (Ticket ticket = take(lock)) {
    // `priority` is final now: promote() finds queued entries only.
    const bool ahead = ticket->priority == Priority::kAhead;
    const std::string origin = std::move(ticket->origin);
    auto work = std::move(ticket->work);
    ++running_;
    if (!origin.empty()) ++origin_running_[origin];
    ticket.reset();
    lock.unlock();
    work(stop_.get_token());
    work = {};
    lock.lock();
    --running_;
    ahead_running_ -= ahead;
    if (auto share = origin_running_.find(origin); share != origin_running_.end() && --share->second == 0)
      origin_running_.erase(share);
    // This thread takes one entry; its leaving may have made room for another.
    wake_.notify_one();
  }
}

Result<MemoryBudget::Share> MemoryBudget::take(uint64_t bytes, Priority priority, Deadline deadline,
                                               std::stop_token stop) {
  std::unique_lock lock(mutex_);
  bool demand = priority == Priority::kDemand;
  uint64_t limit = demand ? limit_ : limit_ / 2;
  auto fits = [&] {
    if (!demand && demand_waiting_ > 0) return false;
    return used_ == 0 || (bytes <= limit && used_ <= limit - bytes);
  };
  demand_waiting_ += demand;
  bool granted = freed_.wait_until(lock, stop, deadline.at(), fits);
  demand_waiting_ -= demand;
  if (!granted) {
    freed_.notify_all();
    if (stop.stop_requested()) return fail(Code::kCancelled, "stopped while waiting for memory");
    return fail({.code = Code::kTooSlow, .what = "no memory for a fill before its deadline", .retry = true});
  }
  used_ += bytes;
  peak_ = std::max(peak_, used_);
  return Share(this, bytes);
}

void MemoryBudget::give_back(uint64_t bytes) {
  {
    std::lock_guard lock(mutex_);
    used_ -= bytes;
  }
  freed_.notify_all();
}

uint64_t MemoryBudget::used() const {
  std::lock_guard lock(mutex_);
  return used_;
}

uint64_t MemoryBudget::peak() const {
  std::lock_guard lock(mutex_);
  return peak_;
}

}  // namespace hydrant::fetch
