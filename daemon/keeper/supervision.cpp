#include "daemon/keeper/supervision.h"

#include <algorithm>
#include <csignal>

namespace hydrant::daemon::keeper {

void ChildState::started(int pid, Instant now) {
  pid_ = pid;
  started_ = now;
}

void ChildState::adopted(int pid, Instant now) { started(pid, now - kShort); }

void ChildState::ended(Instant now) {
  const bool long_life = running() && now - started_ >= kShort;
  if (running()) first_life_ = false;
  pid_ = 0;
  if (long_life) {
    backoff_ = kFirstBackoff;
    start_at_ = now;
  } else {
    start_at_ = now + backoff_;
    backoff_ = std::min<Duration>(backoff_ * 2, kLongestBackoff);
  }
}

void ChildState::ready() {
  if (!running()) return;
  backoff_ = kFirstBackoff;
  first_life_ = false;
}

std::optional<Child> Supervision::due(Instant now) const {
  if (phase_ != Phase::kRunning) return std::nullopt;
  if (auto at = hydrantd_.start_at(); at && *at <= now) return Child::kHydrantd;
  if (auto at = fetchd_.start_at(); at && *at <= now) return Child::kFetchd;
  return std::nullopt;
}

void Supervision::note_end(Child child, std::optional<int> exit_status, Instant now) {
  bool refused = exit_status && *exit_status != 0 && *exit_status != kRootInUse && state(child).at_first_start(now);
  state(child).ended(now);
  if (phase_ != Phase::kRunning) return;
  if (refused) refusal_ = Refusal{child, *exit_status};
  if (refused || (child == Child::kHydrantd && exit_status == 0)) stop(now);
}

void Supervision::ended(int pid, std::optional<int> exit_status, Instant now) {
  if (pid == hydrantd_.pid()) {
    note_end(Child::kHydrantd, exit_status, now);
  } else if (pid == fetchd_.pid()) {
    note_end(Child::kFetchd, exit_status, now);
  }
  advance(now);
}

void Supervision::stop(Instant now) {
  if (phase_ != Phase::kRunning) return;
  phase_ = Phase::kStoppingFetchd;
  kill_at_ = now + kTermGrace;
  advance(now);
}

// Leaves the phases whose child is gone.
void Supervision::advance(Instant now) {
  while (const ChildState* child = stopping()) {
    if (child->running()) return;
    phase_ = phase_ == Phase::kStoppingFetchd ? Phase::kStoppingHydrantd : Phase::kDone;
    kill_at_ = now + kTermGrace;
    term_sent_ = kill_sent_ = false;
  }
}

const ChildState* Supervision::stopping() const {
  if (phase_ == Phase::kStoppingFetchd) return &fetchd_;
  return phase_ == Phase::kStoppingHydrantd ? &hydrantd_ : nullptr;
}

std::optional<Signal> Supervision::signal_due(Instant now) {
  const ChildState* child = stopping();
  if (!child) return std::nullopt;
  if (!term_sent_) {
    term_sent_ = true;
    return Signal{child->pid(), SIGTERM};
  }
  if (!kill_sent_ && now >= kill_at_) {
    kill_sent_ = true;
    return Signal{child->pid(), SIGKILL};
  }
  return std::nullopt;
}

std::optional<Instant> Supervision::next_event() const {
  if (phase_ == Phase::kRunning) {
    auto first = hydrantd_.start_at(), second = fetchd_.start_at();
    if (first && second) return std::min(*first, *second);
    return first ? first : second;
  }
  if (stopping() && !kill_sent_) return kill_at_;
  return std::nullopt;
}

}  // namespace hydrant::daemon::keeper
