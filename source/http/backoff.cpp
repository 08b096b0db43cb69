#include "source/http/backoff.h"

#include <algorithm>
#include <random>

#include "base/nap.h"

namespace hydrant::source {

namespace {

// Half of it fixed, half of it chance: clients that failed together do not come back together.
Duration with_jitter(Duration full) {
  thread_local std::minstd_rand random{std::random_device{}()};
  return full / 2 + Duration(std::uniform_int_distribution<Duration::rep>(0, (full / 2).count())(random));
}

}  // namespace

Result<> Backoff::wait(const Error& cause, std::optional<std::chrono::seconds> retry_after) {
  if (++failures_ >= attempts_) return fail(cause);
  auto doubled = options_.first_backoff * (1u << std::min(failures_ - 1, 16u));
  Duration pause = with_jitter(std::min(doubled, options_.longest_backoff));
  if (retry_after) pause = std::max<Duration>(pause, *retry_after);
  if (pause >= patience_.deadline.left()) return fail(cause);

  nap(patience_.stop, pause);
  if (patience_.stop.stop_requested()) return fail(Code::kCancelled, "cancelled");
  return {};
}

}  // namespace hydrant::source
