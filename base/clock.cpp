#include "base/clock.h"

namespace hydrant {

const Clock& Clock::system() {
  class Steady final : public Clock {
    Instant now() const override { return std::chrono::steady_clock::now(); }
  };
  static const Steady clock;
  return clock;
}

}  // namespace hydrant
