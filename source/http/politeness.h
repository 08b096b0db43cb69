// How many requests an origin gets from us, and how fast: a limit of transfers at a time, a pause when it asks for one,
// and a pace that is found out from its refusals (429, 503).
#pragma once

#include <algorithm>
#include <condition_variable>
#include <map>
#include <optional>
#include <string>
#include <utility>

#include "base/clock.h"
#include "base/error.h"
#include "base/guarded.h"
#include "source/http/http_client.h"

namespace hydrant::source {

// Requests per second, learned. A refusal takes a third off, but no more than leaves four fifths of what was served in
// a second: a limiter without a burst also refuses two that come together. Time without one brings the pace back, by
// half a second far below what was last refused, by a twentieth near it; after two minutes it is dropped. Not
// thread-safe.
class Pace {
 public:
  // When the next request may go; books that moment.
  Instant book(Instant now);
  void served(Instant now) { served_.count(now); }
  // The origin refused one for being too many.
  void refused(Instant now);
  void pause_until(Instant at) { paused_until_ = std::max(paused_until_, at); }
  Instant paused_until() const { return paused_until_; }
  std::optional<double> per_second() const { return rate_; }

 private:
  void recover(Instant now);

  // Events in the last full second and in this one.
  class PerSecond {
   public:
    void count(Instant now);
    unsigned most() const { return std::max(last_, now_); }

   private:
    Instant began_{};
    unsigned last_ = 0, now_ = 0;
  };

  std::optional<double> rate_;  // nothing: as fast as readers ask
  double refused_rate_ = 0;     // at the last refusal
  Instant next_{};              // the first moment that nobody has booked
  Instant last_refusal_{}, last_change_{};
  Instant paused_until_{};
  PerSecond begun_, served_;
};

// One gate an origin. Thread-safe; the lock is never held across a request.
class Politeness {
 public:
  explicit Politeness(size_t transfers_per_origin) : limit_(transfers_per_origin) {}

  // The right to one request; while it lives the request counts as a transfer.
  class Turn {
   public:
    Turn(Politeness& owner, std::string origin) : owner_(&owner), origin_(std::move(origin)) {}
    Turn(Turn&& other) noexcept : owner_(std::exchange(other.owner_, nullptr)), origin_(std::move(other.origin_)) {}
    ~Turn();

   private:
    Politeness* owner_;
    std::string origin_;
  };
  // Waits for it. kBusy, at once, when the origin's pace or the pause it asked for outlasts the deadline; kTooSlow when
  // no transfer ended by then; kCancelled.
  Result<Turn> take(const std::string& origin, const Patience& patience);
  // Whether it has a pace that is kept, a pause that it asked for, or as many transfers as allowed.
  bool is_limited(const std::string& origin);
  // What came of a request. 429 and 503 slow all requests to the origin down, and a short Retry-After stops them for so
  // long. A long one is the matter of that request alone: registries count manifests apart from blobs.
  void answered(const std::string& origin, const HttpHead& head);

 private:
  struct Gate {
    size_t transfers = 0;  // under way
    size_t users = 0;      // turns and those who wait for one; the gate stays while there are any
    Pace pace;
  };
  void leave(const std::string& origin);

  const size_t limit_;
  Guarded<std::map<std::string, Gate>> gates_;
  std::condition_variable_any changed_;  // a transfer ended
};

}  // namespace hydrant::source
