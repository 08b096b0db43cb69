#include "daemon/scrubber.h"

#include <pthread.h>
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <ctime>

#include "base/log.h"
#include "base/nap.h"

namespace hydrant::daemon {

namespace {

constexpr uint64_t kStep = 1 << 20;
// ioprio_set(2); the kernel's own header is no C++.
constexpr int kThisThread = 1, kIdleClass = 3 << 13;
constexpr Duration kBusyPause = std::chrono::milliseconds(200);

// Whatever else there is to do comes first. Where it is refused the rate still holds.
void step_back() {
  pthread_setname_np(pthread_self(), "scrubber");
  const sched_param none{};
  ::sched_setscheduler(0, SCHED_IDLE, &none);
  ::syscall(SYS_ioprio_set, kThisThread, 0, kIdleClass);
}

// False: it is the end.
bool pause(const std::stop_token& stop, Duration duration) {
  nap(stop, duration);
  return !stop.stop_requested();
}

}  // namespace

Scrubber::Scrubber(ScrubberOptions options, Live live, Busy busy)
    : options_(options), live_(std::move(live)), busy_(std::move(busy)), thread_([this](std::stop_token stop) {
        step_back();
        run(stop);
      }) {}

void Scrubber::run(const std::stop_token& stop) {
  if (options_.every == Duration(0)) return;
  for (Duration wait = options_.first; pause(stop, wait); wait = options_.every) {
    for (const auto& cookie : live_())
      if (!pass(*cookie, stop)) return;
    passes_.fetch_add(1);
    ended_at_.store(::time(nullptr));
  }
}

bool Scrubber::pass(cachefiles::Cookie& cookie, const std::stop_token& stop) {
  for (uint64_t at = 0; at != UINT64_MAX;) {
    while (busy_())
      if (!pause(stop, kBusyPause)) return false;
    auto done = cookie.scrub(at, std::min(kStep, options_.rate));
    at = done.next;
    // Whoever reads the file past us will not ask.
    for (const ByteRange& range : done.damaged) cookie.ensure(range, [](int) {});
    if (done.bytes > 0 && !pause(stop, std::chrono::nanoseconds(done.bytes * 1'000'000'000 / options_.rate)))
      return false;
  }
  return !stop.stop_requested();
}

}  // namespace hydrant::daemon
