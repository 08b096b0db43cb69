#include "fetch/fill_queue.h"

#include <pthread.h>

#include <algorithm>

namespace hydrant::fetch {

namespace {
constexpr unsigned kBackgroundLimit = 2;
}

class FillQueue::Entry {
 public:
  Priority priority;
  Instant not_before;
  std::string origin;
  UniqueFunction<void(std::stop_token)> work;
};

FillQueue::FillQueue(unsigned workers, Duration quiet)
    : workers_(workers), undemanded_limit_(std::max(1U, workers / 4)), quiet_(quiet) {
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
    std::unique_lock lock(mutex_);
    if (stop_.stop_requested()) return nullptr;
    queued_[size_t(priority)].push_back(ticket);
    if (priority == Priority::kDemand) {
      demanded_ = Clock::system().now();
      make_way(lock);
    }
  }
  wake_.notify_one();
  return ticket;
}

void FillQueue::make_way(std::unique_lock<std::mutex>&) {
  if (background_running_ == 0) return;
  way_.request_stop();
  way_ = {};
}

void FillQueue::promote(const Ticket& ticket) {
  {
    std::unique_lock lock(mutex_);
    if (!ticket || ticket->priority == Priority::kDemand) return;
    auto& queue = queued_[size_t(ticket->priority)];
    auto at = std::find(queue.begin(), queue.end(), ticket);
    if (at == queue.end()) return;
    queue.erase(at);
    ticket->priority = Priority::kDemand;
    ticket->not_before = Instant::min();
    queued_[size_t(Priority::kDemand)].push_back(ticket);
    demanded_ = Clock::system().now();
    make_way(lock);
  }
  wake_.notify_one();
}

void FillQueue::stop() {
  std::array<std::deque<Ticket>, 4> dropped;  // destroyed without the lock: work may own much
  {
    std::lock_guard lock(mutex_);
    stop_.request_stop();
    way_.request_stop();
    dropped.swap(queued_);
  }
  // Whoever queued the work may hold its ticket, and the work may hold them.
  for (auto& queue : dropped)
    for (const Ticket& ticket : queue) ticket->work = {};
  wake_.notify_all();
  threads_.clear();
}

size_t FillQueue::queued() const {
  std::lock_guard lock(mutex_);
  size_t count = 0;
  for (const auto& queue : queued_) count += queue.size();
  return count;
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
    if (auto ticket = first_ready(queued_[size_t(Priority::kDemand)])) return ticket;
    if (undemanded_running_ < undemanded_limit_)
      for (Priority priority : {Priority::kAhead, Priority::kPrefetch})
        if (auto ticket = first_ready(queued_[size_t(priority)])) {
          ++undemanded_running_;
          return ticket;
        }
    if (running_ == background_running_ && background_running_ < kBackgroundLimit) {
      const bool quiet = demanded_ == Instant::min() || now - demanded_ >= quiet_;
      if (!quiet && !queued_[size_t(Priority::kBackground)].empty())
        next = std::min(next, demanded_ + quiet_);
      else if (auto ticket = first_ready(queued_[size_t(Priority::kBackground)])) {
        ++background_running_;
        return ticket;
      }
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
    const bool background = ticket->priority == Priority::kBackground;
    const bool demand = ticket->priority == Priority::kDemand;
    const bool undemanded = !demand && !background;
    const std::stop_token stop = background ? way_.get_token() : stop_.get_token();
    const std::string origin = std::move(ticket->origin);
    auto work = std::move(ticket->work);
    ++running_;
    if (!origin.empty()) ++origin_running_[origin];
    ticket.reset();
    lock.unlock();
    work(stop);
    work = {};
    lock.lock();
    --running_;
    if (demand) demanded_ = Clock::system().now();
    undemanded_running_ -= undemanded;
    background_running_ -= background;
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
