#include "daemon/keeper/guard.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/fanotify.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <climits>
#include <csignal>
#include <cstring>

#include "proto/handed_events.h"

namespace hydrant::daemon::keeper {

namespace {

constexpr char kDenyWord = 'd';
constexpr char kName[] = "hydrant-guard";

bool address_of(const char* path, sockaddr_un& out) {
  out.sun_family = AF_UNIX;
  if (std::strlen(path) >= sizeof out.sun_path) return false;
  std::strcpy(out.sun_path, path);
  return true;
}

int listen_at(const char* path) {
  sockaddr_un address{};
  if (!address_of(path, address)) return -1;
  const int fd = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  ::unlink(path);  // of the one before us
  if (fd >= 0 &&
      (::fchmod(fd, 0600) || ::bind(fd, reinterpret_cast<sockaddr*>(&address), sizeof address) || ::listen(fd, 4))) {
    ::close(fd);
    return -1;
  }
  return fd;
}

union Control {
  cmsghdr header;
  char bytes[CMSG_SPACE(kGuardedCount * sizeof(int))];
};

bool give(int to, const int (&held)[kGuardedCount]) {
  char word = 0;
  iovec part{&word, 1};
  Control control{};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = &control;
  message.msg_controllen = sizeof control;
  control.header = {CMSG_LEN(sizeof held), SOL_SOCKET, SCM_RIGHTS};
  std::memcpy(CMSG_DATA(&control.header), held, sizeof held);
  return ::sendmsg(to, &message, MSG_NOSIGNAL) == 1;
}

void deny_one(int group, int fd) {
  const fanotify_response response{.fd = fd, .response = FAN_DENY};
  (void)!::write(group, &response, sizeof response);
}

// What a dead hydrantd had read is known by its number alone.
void deny_read_ones(int group) {
  rlimit limit{};
  ::getrlimit(RLIMIT_NOFILE, &limit);
  const int end = limit.rlim_max < (1 << 24) ? int(limit.rlim_max) : 1 << 24;
  for (int fd = 0; fd < end; ++fd) deny_one(group, fd);
}

void deny_new_ones(int group) {
  alignas(fanotify_event_metadata) static char buffer[4096];
  for (ssize_t size; (size = ::read(group, buffer, sizeof buffer)) > 0;) {
    for (ssize_t at = 0; at + ssize_t(sizeof(fanotify_event_metadata)) <= size;) {
      fanotify_event_metadata event;
      std::memcpy(&event, buffer + at, sizeof event);
      if (event.event_len < sizeof event) break;
      at += event.event_len;
      if (event.fd < 0) continue;
      deny_one(group, event.fd);
      ::close(event.fd);
    }
  }
}

// Reserved before it runs: a late starter must not take itself for the latest.
uint64_t next_number(int record) {
  uint64_t number = 0;
  (void)!::pread(record, &number, sizeof number, proto::kHandedEventsGuardsMade);
  ++number;
  (void)!::pwrite(record, &number, sizeof number, proto::kHandedEventsGuardsMade);
  return number;
}

// Where the latest guard that runs has its number; null when it cannot be seen.
uint64_t* latest_in(int record) {
  void* at = ::mmap(nullptr, proto::kHandedEventsHeader, PROT_READ | PROT_WRITE, MAP_SHARED, record, 0);
  if (at == MAP_FAILED) return nullptr;
  return reinterpret_cast<uint64_t*>(static_cast<std::byte*>(at) + proto::kHandedEventsGuard);
}

// False: a later one runs.
bool is_latest(uint64_t* latest, uint64_t number) {
  if (!latest) return true;
  uint64_t seen = __atomic_load_n(latest, __ATOMIC_SEQ_CST);
  while (seen < number)
    if (__atomic_compare_exchange_n(latest, &seen, number, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST)) return true;
  return seen == number;
}

void close_all_but(const int (&held)[kGuardedCount], const int (&others)[3]) {
  constexpr int kHighest = 4096;  // the keeper has few
  for (int fd = 3; fd < kHighest; ++fd) {
    auto is_fd = [fd](int each) { return each == fd; };
    if (std::none_of(held, std::end(held), is_fd) && std::none_of(others, std::end(others), is_fd)) ::close(fd);
  }
  const int null = ::open("/dev/null", O_RDWR | O_CLOEXEC);
  for (int fd = 0; fd <= 2; ++fd) ::dup2(null, fd);
  if (null > 2) ::close(null);
}

}  // namespace

void Guard::prepare(const char* socket_path, char* name) {
  socket_path_ = socket_path;
  name_ = name;
}

// Nothing here is allocated, and nothing can end it but SIGKILL.
void Guard::serve(const int (&held)[kGuardedCount], int keeper, int hydrantd, uint64_t number) {
  const int group = held[0];
  uint64_t* latest = latest_in(held[2]);
  ::setsid();
  sigset_t all;
  sigfillset(&all);
  ::sigprocmask(SIG_SETMASK, &all, nullptr);
  const int listener = listen_at(socket_path_);
  close_all_but(held, {keeper, hydrantd, listener});
  ::prctl(PR_SET_NAME, kName);
  if (const size_t room = std::strlen(name_); room >= sizeof kName - 1) {
    std::memset(name_, 0, room);
    std::memcpy(name_, kName, sizeof kName - 1);
  }
  if (!is_latest(latest, number)) ::_exit(0);
  bool denying = false, keeper_lives = true, hydrantd_lives = hydrantd >= 0;
  for (;;) {
    pollfd sources[] = {{listener, POLLIN, 0},
                        {keeper_lives ? keeper : -1, POLLIN, 0},
                        {hydrantd_lives ? hydrantd : -1, POLLIN, 0},
                        {denying ? group : -1, POLLIN, 0}};
    if (::poll(sources, 4, -1) < 0) continue;
    if (!is_latest(latest, number)) ::_exit(0);
    char word = 0;
    bool told = false;
    if (sources[1].revents) {
      if (::read(keeper, &word, 1) == 1)
        told = word == kDenyWord;
      else
        keeper_lives = false;
    }
    if (sources[2].revents) hydrantd_lives = false;
    if (sources[0].revents) {
      const int caller = ::accept4(listener, nullptr, nullptr, SOCK_CLOEXEC);
      if (caller >= 0 && give(caller, held)) ::_exit(0);
      if (caller >= 0) ::close(caller);
    }
    if (!denying && (told || (!keeper_lives && !hydrantd_lives))) {
      denying = true;
      deny_read_ones(group);
    }
    if (denying) deny_new_ones(group);
  }
}

void Guard::inherit(Descriptors& into) {
  sockaddr_un address{};
  if (!address_of(socket_path_, address)) return;
  const int fd = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  const timeval patience{.tv_sec = 2, .tv_usec = 0};
  if (fd < 0) return;
  ::setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
  char word;
  iovec part{&word, 1};
  Control control{};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = &control;
  message.msg_controllen = sizeof control;
  if (::connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0 &&
      ::recvmsg(fd, &message, MSG_CMSG_CLOEXEC) == 1) {
    if (cmsghdr* at = CMSG_FIRSTHDR(&message); at && at->cmsg_len == CMSG_LEN(kGuardedCount * sizeof(int))) {
      int held[kGuardedCount];
      std::memcpy(held, CMSG_DATA(at), sizeof held);
      for (size_t i = 0; i < kGuardedCount; ++i) into.store(kGuardedNames[i], held[i]);
    }
  }
  ::close(fd);
}

void Guard::renew(const Descriptors& held, int hydrantd) {
  int guarded[kGuardedCount];
  for (size_t i = 0; i < kGuardedCount; ++i)
    if ((guarded[i] = held.find(kGuardedNames[i])) < 0) return end();
  const int before = pid_, before_pipe = pipe_;
  const int pidfd = hydrantd > 0 ? int(::syscall(SYS_pidfd_open, hydrantd, 0)) : -1;
  const uint64_t number = next_number(guarded[2]);
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) == 0) {
    pid_ = ::fork();
    if (pid_ == 0) serve(guarded, ends[0], pidfd, number);
    ::close(ends[0]);
    if (pid_ < 0) {
      pid_ = before;  // better one that knows less than none
      ::close(ends[1]);
    } else {
      pipe_ = ends[1];
      denies_ = false;
      if (before > 0) ::kill(before, SIGKILL);
      if (before_pipe >= 0) ::close(before_pipe);
    }
  }
  if (pidfd >= 0) ::close(pidfd);
}

void Guard::deny() { denies_ = pipe_ >= 0 && ::write(pipe_, &kDenyWord, 1) == 1; }

void Guard::end() {
  if (pid_ > 0) ::kill(pid_, SIGKILL);
  ::unlink(socket_path_);
  if (pipe_ >= 0) ::close(pipe_);
  pid_ = 0;
  pipe_ = -1;
  denies_ = false;
}

}  // namespace hydrant::daemon::keeper
