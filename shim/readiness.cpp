#include "shim/readiness.h"

#include <fcntl.h>
#include <sched.h>
#include <sys/mman.h>

#include <atomic>
#include <cstring>

#include "shim/call.h"
#include "shim/real.h"
#include "shim/sys.h"

namespace hydrant::shim {
namespace {

HYDRANT_REAL(ppoll);
HYDRANT_REAL(epoll_ctl);

constexpr short kAlways = POLLIN | POLLOUT | POLLRDNORM | POLLWRNORM;  // of a file without a poll of its own
constexpr uint32_t kEpollManner = EPOLLET | EPOLLONESHOT | EPOLLEXCLUSIVE | EPOLLWAKEUP;

// Readiness descriptors that this process has fetched. An entry is believed only if its descriptor says the same, so
// forks, execs and programs that close what they do not know need no care.
struct Fetched {
  std::atomic<uint64_t> id{0};
  std::atomic<int> fd{-1};
};
constinit Fetched fetched[16];

bool good(const Fetched& entry, uint64_t id) {
  Name name;
  return entry.id.load() == id && is_kind(entry.fd.load(), Kind::kReadiness, &name) && name.id == id;
}

bool dead(const Fetched& entry) {
  uint64_t id = entry.id.load();
  if (id == 0 || !good(entry, id)) return true;
  pollfd one{entry.fd.load(), 0, 0};
  timespec now{};
  return sys(SYS_ppoll, &one, 1, &now, nullptr, 0) > 0 && (one.revents & POLLHUP);
}

void keep(uint64_t id, int fd) {
  for (Fetched& entry : fetched) {
    if (!dead(entry)) continue;
    Name name;
    int old = entry.fd.exchange(fd);
    uint64_t old_id = entry.id.exchange(id);
    if (old >= 0 && is_kind(old, Kind::kReadiness, &name) && name.id == old_id) sys(SYS_close, old);
    return;
  }
}

// -errno when the device has no engine any more.
int readiness_of(int fd, const Name& name) {
  for (const Fetched& entry : fetched)
    if (good(entry, name.id)) return entry.fd.load();
  auto head = proto::device::encode_bare(proto::channel::Op::kReadiness, 1);
  Answer answer = call({.socket = fd, .head = &head});
  if (answer.result < 0 || answer.passed < 0) return answer.result < 0 ? static_cast<int>(answer.result) : -EMFILE;
  fresh(answer.passed);
  int moved = move_away(answer.passed);
  fresh(moved);
  keep(name.id, moved);
  return moved;
}

// Room for as many descriptors as a call names.
class Scratch {
 public:
  explicit Scratch(nfds_t count) : size_(count * sizeof(pollfd)) {
    if (count <= kFew) return;
    long at = sys(SYS_mmap, nullptr, size_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    fds = at < 0 ? nullptr : reinterpret_cast<pollfd*>(at);
  }
  Scratch(const Scratch&) = delete;
  ~Scratch() {
    if (fds && fds != few_) sys(SYS_munmap, fds, size_);
  }

 private:
  static constexpr nfds_t kFew = 128;
  pollfd few_[kFew];
  const size_t size_;

 public:
  pollfd* fds = few_;
};

// Registrations with epoll: each has a duplicate of the readiness of its own, for epoll tells them apart by number.
struct Registration {
  int epoll = -1;
  int fd = -1;
  int shadow = -1;
  uint64_t id = 0;
  long owner = 0;  // the process that registered it; a child's close is none of its parent's
};
constinit Registration registrations[256];
// The process that holds it. A child of a fork finds its parent's mark, which nobody will take away, and takes it over.
constinit std::atomic<long> registrations_lock{0};

class Locked {
 public:
  Locked() {
    long self = sys(SYS_getpid);
    for (;;) {
      long holder = 0;
      if (registrations_lock.compare_exchange_strong(holder, self)) return;
      if (holder != self && registrations_lock.compare_exchange_strong(holder, self)) return;
      sched_yield();
    }
  }
  Locked(const Locked&) = delete;
  ~Locked() { registrations_lock.store(0); }
};

bool valid(const Registration& each) {
  Name name;
  return each.shadow >= 0 && is_kind(each.shadow, Kind::kReadiness, &name) && name.id == each.id;
}

void drop(Registration& each) {
  if (valid(each)) sys(SYS_close, each.shadow);
  each = {};
}

int register_device(int epoll, int fd, const Name& name, epoll_event* event) {
  Registration* free = nullptr;
  for (Registration& each : registrations) {
    if (each.shadow < 0 || !valid(each)) {
      if (!free) free = &each;
      continue;
    }
    if (each.epoll != epoll || each.fd != fd) continue;
    // Either it is registered, and this says so, or the number of the epoll descriptor was used again.
    if (each.id == name.id) return real_epoll_ctl(epoll, EPOLL_CTL_ADD, each.shadow, event);
    drop(each);
    free = &each;
  }
  if (!free) return static_cast<int>(to_libc(-ENOSPC));
  int readiness = readiness_of(fd, name);
  if (readiness < 0) return static_cast<int>(to_libc(-EIO));
  long shadow = sys(SYS_fcntl, readiness, F_DUPFD_CLOEXEC, static_cast<long>(readiness));
  if (shadow < 0) return static_cast<int>(to_libc(-ENOMEM));
  fresh(static_cast<int>(shadow));
  int result = real_epoll_ctl(epoll, EPOLL_CTL_ADD, static_cast<int>(shadow), event);
  if (result != 0) return sys(SYS_close, shadow), result;
  *free = {epoll, fd, static_cast<int>(shadow), name.id, sys(SYS_getpid)};
  return 0;
}

short events_of(const fd_set* in, const fd_set* out, const fd_set* except, int fd) {
  int events = 0;
  if (in && FD_ISSET(fd, in)) events |= POLLIN | POLLRDNORM | POLLRDBAND;
  if (out && FD_ISSET(fd, out)) events |= POLLOUT | POLLWRNORM | POLLWRBAND;
  if (except && FD_ISSET(fd, except)) events |= POLLPRI;
  return static_cast<short>(events);
}

}  // namespace

bool any_ours(const pollfd* fds, nfds_t count) {
  Name name;
  for (nfds_t i = 0; i < count; ++i)
    if (identify(fds[i].fd, &name)) return true;
  return false;
}

bool any_ours(int count, const fd_set* in, const fd_set* out, const fd_set* except) {
  Name name;
  if (count > FD_SETSIZE) return false;
  for (int fd = 0; fd < count; ++fd)
    if (events_of(in, out, except, fd) && identify(fd, &name)) return true;
  return false;
}

int poll_calls(pollfd* fds, nfds_t count, const timespec* timeout, const sigset_t* mask) {
  Scratch copy(count);
  if (!copy.fds) return static_cast<int>(to_libc(-ENOMEM));
  std::memcpy(copy.fds, fds, count * sizeof(pollfd));
  bool at_once = false;
  for (nfds_t i = 0; i < count; ++i) {
    Name name;
    fds[i].revents = 0;
    if (!identify(fds[i].fd, &name)) continue;
    copy.fds[i].fd = -1;
    if (name.kind == Kind::kHandle) fds[i].revents = fds[i].events & kAlways;
    if (name.kind == Kind::kDevice) {
      int readiness = readiness_of(fds[i].fd, name);
      copy.fds[i] = {readiness, static_cast<short>(fds[i].events & (POLLIN | POLLOUT)), 0};
      if (readiness < 0) fds[i].revents = POLLERR;
    }
    at_once |= fds[i].revents != 0;
  }
  static constexpr timespec kNow{};
  int result = real_ppoll(copy.fds, count, at_once ? &kNow : timeout, mask);
  if (result < 0) return result;
  result = 0;
  for (nfds_t i = 0; i < count; ++i) {
    if (copy.fds[i].fd >= 0) fds[i].revents = copy.fds[i].revents;
    if (fds[i].revents) ++result;
  }
  return result;
}

int select_calls(int count, fd_set* in, fd_set* out, fd_set* except, timespec* timeout, const sigset_t* mask) {
  Scratch wanted(static_cast<nfds_t>(count));
  if (!wanted.fds) return static_cast<int>(to_libc(-ENOMEM));
  nfds_t used = 0;
  for (int fd = 0; fd < count; ++fd)
    if (short events = events_of(in, out, except, fd)) wanted.fds[used++] = {fd, events, 0};
  int result = poll_calls(wanted.fds, used, timeout, mask);
  if (result < 0) return result;
  for (nfds_t i = 0; i < used; ++i)
    if (wanted.fds[i].revents & POLLNVAL) return static_cast<int>(to_libc(-EBADF));
  // What select takes each of the bits for.
  constexpr short kIn = POLLRDNORM | POLLRDBAND | POLLIN | POLLHUP | POLLERR;
  constexpr short kOut = POLLWRBAND | POLLWRNORM | POLLOUT | POLLERR;
  result = 0;
  for (nfds_t i = 0; i < used; ++i) {
    const pollfd& each = wanted.fds[i];
    auto show = [&](fd_set* set, short bits) {
      if (!set || !FD_ISSET(each.fd, set)) return;
      if (each.revents & bits)
        ++result;
      else
        FD_CLR(each.fd, set);
    };
    show(in, kIn);
    show(out, kOut);
    show(except, POLLPRI);
  }
  return result;
}

int epoll_ctl_calls(int epoll, int operation, int fd, epoll_event* event, const Name& name) {
  if (name.kind == Kind::kHandle) return static_cast<int>(to_libc(-EPERM));  // a file that cannot be polled
  if (name.kind != Kind::kDevice) return static_cast<int>(to_libc(-EBADF));
  epoll_event translated{};
  if (event && operation != EPOLL_CTL_DEL) {
    translated = *event;
    translated.events &= EPOLLIN | EPOLLOUT | kEpollManner;
  }
  Locked lock;
  if (operation == EPOLL_CTL_ADD) return register_device(epoll, fd, name, &translated);
  for (Registration& each : registrations) {
    if (each.epoll != epoll || each.fd != fd || each.id != name.id || !valid(each)) continue;
    int result = real_epoll_ctl(epoll, operation, each.shadow, &translated);
    if (operation == EPOLL_CTL_DEL && result == 0) drop(each);
    return result;
  }
  // Errors of the epoll descriptor itself come first.
  return real_epoll_ctl(epoll, operation, fd, event);
}

void forget_registrations(int fd) {
  for (const Registration& each : registrations) {
    if (each.fd != fd || each.shadow < 0 || each.owner != sys(SYS_getpid)) continue;
    Locked lock;
    for (Registration& ours : registrations) {
      if (ours.fd != fd || ours.shadow < 0) continue;
      if (valid(ours)) real_epoll_ctl(ours.epoll, EPOLL_CTL_DEL, ours.shadow, nullptr);
      drop(ours);
    }
    return;
  }
}

}  // namespace hydrant::shim
