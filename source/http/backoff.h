// Pauses between tries: doubling, with jitter, inside a deadline, ended at once by a stop.
#pragma once

#include <chrono>
#include <optional>

#include "base/error.h"
#include "source/http/http_client.h"

namespace hydrant::source {

// Belongs to one request; not thread-safe.
class Backoff {
 public:
  // `attempts`: 0 stands for those of `options`.
  Backoff(const HttpOptions& options, const Patience& patience, unsigned attempts = 0)
      : options_(options), patience_(patience), attempts_(attempts ? attempts : options.attempts) {}

  // Sleeps before the next try. Fails with `cause` when the tries are used up, or when the pause (`retry_after` if the
  // server asked for one) would outlast the deadline; with kCancelled when nobody waits any more.
  Result<> wait(const Error& cause, std::optional<std::chrono::seconds> retry_after = std::nullopt);
  // Something was achieved: the next failure is a first one.
  void reset() { failures_ = 0; }

 private:
  const HttpOptions& options_;
  const Patience& patience_;
  const unsigned attempts_;
  unsigned failures_ = 0;
};

}  // namespace hydrant::source
