// When the keeper starts what, and when it gives up: decisions only, no processes.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>

#include "base/clock.h"

namespace hydrant::daemon::keeper {

inline constexpr Duration kFirstBackoff = std::chrono::milliseconds(50);
inline constexpr Duration kLongestBackoff = std::chrono::seconds(5);
inline constexpr Duration kSteady = std::chrono::seconds(10);  // a life this long was no crash at start
inline constexpr Duration kShort = std::chrono::seconds(1);    // a life shorter than this makes the next backoff longer
inline constexpr Duration kTermGrace = std::chrono::seconds(10);

// One child's lives. No allocation. Owned by the keeper's only thread.
class ChildState {
 public:
  explicit ChildState(Instant now) : start_at_(now) {}

  bool running() const { return pid_ > 0; }
  int pid() const { return pid_; }
  // When it is to be started; nothing while it runs.
  std::optional<Instant> start_at() const { return running() ? std::nullopt : std::optional(start_at_); }

  void started(int pid, Instant now);
  // It runs already, nobody knows since when: its life counts as one that was not short.
  void adopted(int pid, Instant now);
  // It died or could not be started. The next life begins at once, for readers wait; but after a short one only when
  // the backoff is over, which doubles with each.
  void ended(Instant now);
  // It said that it works: whatever ends it now, the next one need not wait for long.
  void ready();
  Duration backoff() const { return backoff_; }
  // Of a running child: nothing has gone wrong before, and it has not run for long.
  bool at_first_start(Instant now) const { return first_life_ && now - started_ < kSteady; }

 private:
  int pid_ = 0;
  bool first_life_ = true;
  Instant started_{};
  Instant start_at_;
  Duration backoff_ = kFirstBackoff;
};

// What is being stopped. The order is fixed: the user daemon first, so that nothing asks hydrantd while it unmounts.
enum class Phase { kRunning, kStoppingFetchd, kStoppingHydrantd, kDone };
enum class Child { kHydrantd, kFetchd };

// Exit status of a child that found the root in use: the daemon that has it may end any time.
inline constexpr int kRootInUse = 7;

// A child that cannot work: its first life ended soon, by its own decision. Starting it again would tell nobody.
struct Refusal {
  Child child{};
  int status = 0;  // its exit status, 1..255
};

struct Signal {
  int pid = 0;
  int number = 0;
};

// The whole of the keeper's state. No allocation. Owned by the keeper's only thread.
class Supervision {
 public:
  explicit Supervision(Instant now) : hydrantd_(now), fetchd_(now) {}

  ChildState& state(Child child) { return child == Child::kHydrantd ? hydrantd_ : fetchd_; }
  Phase phase() const { return phase_; }

  // The child to start now, if any. hydrantd goes first: fetchd would only find its socket missing.
  std::optional<Child> due(Instant now) const;
  // A child of ours ended; `exit_status` is nothing when a signal killed it. hydrantd's clean end is an ordered stop of
  // everything, and so is a refusal of either.
  void ended(int pid, std::optional<int> exit_status, Instant now);
  const std::optional<Refusal>& refusal() const { return refusal_; }
  void stop(Instant now);
  // The signal to send now, if any: TERM when a child's turn comes, KILL when its grace is over. Call until nothing.
  std::optional<Signal> signal_due(Instant now);
  // When something is to be done next without a child's end or a signal.
  std::optional<Instant> next_event() const;

 private:
  void advance(Instant now);
  const ChildState* stopping() const;
  void note_end(Child child, std::optional<int> exit_status, Instant now);

  ChildState hydrantd_;
  ChildState fetchd_;
  std::optional<Refusal> refusal_;
  Phase phase_ = Phase::kRunning;
  Instant kill_at_{};
  bool term_sent_ = false;
  bool kill_sent_ = false;
};

}  // namespace hydrant::daemon::keeper
