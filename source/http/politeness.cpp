#include "source/http/politeness.h"

#include <algorithm>

namespace hydrant::source {

namespace {

using std::chrono::seconds;

constexpr double kFirst = 20;                                 // at least, where the first refusal comes
constexpr double kSlowest = 1;                                // requests a second
constexpr auto kOneRefusal = std::chrono::milliseconds(100);  // refusals so close together are one: they crossed
constexpr auto kForget = seconds(120);                        // without a refusal the origin has no pace any more
constexpr auto kSharedPause = seconds(10);
constexpr size_t kMaxGates = 1024;

Duration interval(double per_second) {
  return std::chrono::duration_cast<Duration>(std::chrono::duration<double>(1 / per_second));
}

}  // namespace

void Pace::PerSecond::count(Instant now) {
  if (now - began_ >= seconds(1)) {
    last_ = now - began_ < seconds(2) ? now_ : 0;
    now_ = 0;
    began_ = now;
  }
  ++now_;
}

Instant Pace::book(Instant now) {
  recover(now);
  auto at = std::max({now, paused_until_, rate_ ? next_ : now});
  if (rate_) next_ = at + interval(*rate_);
  begun_.count(now);
  return at;
}

void Pace::refused(Instant now) {
  if (now - last_refusal_ < kOneRefusal) return;
  last_refusal_ = last_change_ = now;
  refused_rate_ = rate_.value_or(std::max(kFirst, begun_.most() * 1.0));
  rate_ = std::max({kSlowest, refused_rate_ * 2 / 3, std::min(refused_rate_, served_.most() * 0.8)});
  next_ = std::max(next_, now + interval(*rate_));
}

void Pace::recover(Instant now) {
  if (!rate_) return;
  if (now - last_refusal_ > kForget) {
    rate_.reset();
    return;
  }
  if (now - last_change_ < seconds(1)) return;
  *rate_ *= *rate_ < refused_rate_ / 2 ? 1.5 : 1.05;
  last_change_ = now;
}

Politeness::Turn::~Turn() {
  if (owner_) owner_->leave(origin_);
}

Result<Politeness::Turn> Politeness::take(const std::string& origin, const Patience& patience) {
  auto gates = gates_.lock();
  // One that nobody uses knows nothing that could not be learned again.
  if (gates->size() >= kMaxGates) std::erase_if(*gates, [](const auto& entry) { return entry.second.users == 0; });
  auto& gate = (*gates)[origin];
  ++gate.users;
  std::optional<Instant> booked;
  for (std::optional<Error> error;;) {
    const auto now = Clock::system().now();
    if (patience.stop.stop_requested()) {
      error = Error{.code = Code::kCancelled, .what = origin + ": cancelled"};
    } else if (patience.deadline.passed()) {
      error = Error{.code = Code::kTooSlow, .what = origin + ": as many transfers as allowed run already"};
    } else if (!booked || gate.pace.paused_until() > now) {
      booked = gate.pace.book(now);
      if (*booked >= patience.deadline.at())
        error = Error{.code = Code::kBusy, .what = origin + ": limits requests; the next may go after the deadline"};
    }
    if (error) {
      --gate.users;
      return fail(std::move(*error));
    }
    auto free = [&] { return gate.transfers < limit_; };
    if (now < *booked) {
      changed_.wait_until(gates.native(), patience.stop, *booked, [] { return false; });
    } else if (!free()) {
      changed_.wait_until(gates.native(), patience.stop, patience.deadline.at(), free);
    } else {
      ++gate.transfers;
      return Turn(*this, origin);
    }
  }
}

bool Politeness::is_limited(const std::string& origin) {
  auto gates = gates_.lock();
  auto gate = gates->find(origin);
  return gate != gates->end() && (gate->second.pace.per_second() || gate->second.transfers >= limit_ ||
                                  gate->second.pace.paused_until() > Clock::system().now());
}

void Politeness::leave(const std::string& origin) {
  auto gates = gates_.lock();
  auto& gate = (*gates)[origin];
  --gate.transfers;
  --gate.users;
  changed_.notify_all();
}

void Politeness::answered(const std::string& origin, const HttpHead& head) {
  const auto now = Clock::system().now();
  auto gates = gates_.lock();
  auto gate = gates->find(origin);
  if (gate == gates->end()) return;
  if (head.status != 429 && head.status != 503) return gate->second.pace.served(now);
  gate->second.pace.refused(now);
  if (head.retry_after && *head.retry_after <= kSharedPause) gate->second.pace.pause_until(now + *head.retry_after);
}

}  // namespace hydrant::source
