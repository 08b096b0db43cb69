// poll, select, epoll_ctl. epoll_wait and its kin need nothing: what they wait for is what epoll_ctl put there.
#include <sys/epoll.h>
#include <sys/poll.h>
#include <sys/select.h>
#include <time.h>

#include "shim/identity.h"
#include "shim/interpose.h"
#include "shim/readiness.h"
#include "shim/real.h"
#include "shim/sys.h"

namespace {

using namespace hydrant::shim;

HYDRANT_REAL(poll);
HYDRANT_REAL(ppoll);
HYDRANT_REAL(select);
HYDRANT_REAL(pselect);
HYDRANT_REAL(epoll_ctl);
constinit Real<int(pollfd*, nfds_t, int, size_t)> real___poll_chk("__poll_chk");
constinit Real<int(pollfd*, nfds_t, const timespec*, const sigset_t*, size_t)> real___ppoll_chk("__ppoll_chk");

timespec now() {
  timespec at{};
  sys(SYS_clock_gettime, CLOCK_MONOTONIC, &at);
  return at;
}

// What is left of `whole` when `start` was then; select tells its caller.
timeval rest_of(timeval whole, const timespec& start) {
  timespec end = now();
  long long left = (whole.tv_sec * 1000000LL + whole.tv_usec) -
                   ((end.tv_sec - start.tv_sec) * 1000000LL + (end.tv_nsec - start.tv_nsec) / 1000);
  if (left < 0) left = 0;
  return {static_cast<time_t>(left / 1000000), static_cast<suseconds_t>(left % 1000000)};
}

}  // namespace

HYDRANT_INTERPOSE(int, poll, (pollfd * fds, nfds_t count, int timeout)) {
  if (!any_ours(fds, count)) return real_poll(fds, count, timeout);
  timespec limit{timeout / 1000, timeout % 1000 * 1000000L};
  return poll_calls(fds, count, timeout < 0 ? nullptr : &limit, nullptr);
}
HYDRANT_ALSO(__poll, poll);

HYDRANT_INTERPOSE(int, __poll_chk, (pollfd * fds, nfds_t count, int timeout, size_t capacity)) {
  if (count > capacity / sizeof *fds) return real___poll_chk(fds, count, timeout, capacity);
  return interposed_poll(fds, count, timeout);
}

HYDRANT_INTERPOSE(int, ppoll, (pollfd * fds, nfds_t count, const timespec* timeout, const sigset_t* mask)) {
  if (!any_ours(fds, count)) return real_ppoll(fds, count, timeout, mask);
  return poll_calls(fds, count, timeout, mask);
}

HYDRANT_INTERPOSE(int, __ppoll_chk,
                  (pollfd * fds, nfds_t count, const timespec* timeout, const sigset_t* mask, size_t capacity)) {
  if (count > capacity / sizeof *fds) return real___ppoll_chk(fds, count, timeout, mask, capacity);
  return interposed_ppoll(fds, count, timeout, mask);
}

HYDRANT_INTERPOSE(int, select, (int count, fd_set* in, fd_set* out, fd_set* except, timeval* timeout)) {
  if (!any_ours(count, in, out, except)) return real_select(count, in, out, except, timeout);
  if (!timeout) return select_calls(count, in, out, except, nullptr, nullptr);
  if (timeout->tv_sec < 0 || timeout->tv_usec < 0) return static_cast<int>(to_libc(-EINVAL));
  timespec limit{timeout->tv_sec + timeout->tv_usec / 1000000, timeout->tv_usec % 1000000 * 1000L};
  timespec start = now();
  int result = select_calls(count, in, out, except, &limit, nullptr);
  *timeout = rest_of(*timeout, start);
  return result;
}
HYDRANT_ALSO(__select, select);

HYDRANT_INTERPOSE(int, pselect,
                  (int count, fd_set* in, fd_set* out, fd_set* except, const timespec* timeout, const sigset_t* mask)) {
  if (!any_ours(count, in, out, except)) return real_pselect(count, in, out, except, timeout, mask);
  timespec limit;
  if (timeout) limit = *timeout;
  return select_calls(count, in, out, except, timeout ? &limit : nullptr, mask);
}

HYDRANT_INTERPOSE(int, epoll_ctl, (int epoll, int operation, int fd, epoll_event* event)) {
  Name name;
  if (!identify(fd, &name)) return real_epoll_ctl(epoll, operation, fd, event);
  return epoll_ctl_calls(epoll, operation, fd, event, name);
}
