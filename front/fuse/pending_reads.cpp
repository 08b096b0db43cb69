#include "front/fuse/pending_reads.h"

#include <algorithm>

namespace hydrant::front {

bool PendingReads::insert(PendingRead read) {
  std::lock_guard lock(mutex_);
  if (closed_) return false;
  uint64_t unique = read.unique;
  auto [at, fresh] = reads_.try_emplace(unique);
  if (!fresh) return false;  // the kernel numbers its requests once
  at->second.read = std::move(read);
  at->second.read.since = Clock::system().now();
  at->second.expires = at->second.read.since + limit_;
  at->second.interrupted = std::ranges::find(early_, unique) != early_.end();
  at->second.place = order_.insert(order_.end(), unique);
  if (order_.size() == 1) changed_.notify_all();
  return true;
}

PendingRead PendingReads::erase(std::unordered_map<uint64_t, Entry>::iterator at) {
  PendingRead read = std::move(at->second.read);
  order_.erase(at->second.place);
  reads_.erase(at);
  return read;
}

std::optional<PendingRead> PendingReads::take(uint64_t unique) {
  std::lock_guard lock(mutex_);
  auto at = reads_.find(unique);
  if (at == reads_.end()) return std::nullopt;
  return erase(at);
}

PendingReads::Wait PendingReads::attach(uint64_t unique, Wait wait) {
  std::lock_guard lock(mutex_);
  auto at = reads_.find(unique);
  if (at == reads_.end() || at->second.interrupted) return wait;
  at->second.read.wait = std::move(wait);
  return nullptr;
}

PendingReads::Wait PendingReads::interrupt(uint64_t unique) {
  std::lock_guard lock(mutex_);
  auto at = reads_.find(unique);
  if (at == reads_.end()) {
    early_[early_next_++ % early_.size()] = unique;
    return nullptr;
  }
  at->second.interrupted = true;
  return at->second.read.wait;
}

std::vector<PendingRead> PendingReads::wait_expired() {
  std::unique_lock lock(mutex_);
  std::vector<PendingRead> expired;
  for (;;) {
    if (closed_) return {};
    Instant now = Clock::system().now();
    while (!order_.empty()) {
      auto at = reads_.find(order_.front());
      if (at->second.expires > now) break;
      expired.push_back(erase(at));
    }
    if (!expired.empty()) return expired;
    if (order_.empty()) {
      changed_.wait(lock);
    } else {
      Instant first = reads_.at(order_.front()).expires;
      changed_.wait_until(lock, first);
    }
  }
}

std::vector<PendingRead> PendingReads::close() {
  std::lock_guard lock(mutex_);
  closed_ = true;
  std::vector<PendingRead> all;
  while (!reads_.empty()) all.push_back(erase(reads_.begin()));
  changed_.notify_all();
  return all;
}

size_t PendingReads::count() const {
  std::lock_guard lock(mutex_);
  return reads_.size();
}

}  // namespace hydrant::front
