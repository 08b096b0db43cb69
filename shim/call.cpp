#include "shim/call.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <utility>

#include "shim/identity.h"
#include "shim/sys.h"

namespace hydrant::shim {
namespace {

namespace ch = proto::channel;
constexpr size_t kMostParts = 64;

struct Pair {
  int ours = -1;
  int theirs = -1;
};

// The spare pair, and what it was when it was made: a program may close numbers that it does not know.
constinit std::atomic<bool> spare_free{false};
constinit Pair spare;
constinit ino_t spare_inodes[2];
constinit pid_t spare_owner = 0;  // after a fork the pair is the parent's: an answer would reach either

ino_t inode(int fd) {
  struct stat status;
  return sys(SYS_fstat, fd, &status) < 0 ? 0 : status.st_ino;
}

bool take_spare(Pair* pair) {
  if (!spare_free.exchange(false)) return false;
  bool good =
      spare_owner == sys(SYS_getpid) && inode(spare.ours) == spare_inodes[0] && inode(spare.theirs) == spare_inodes[1];
  if (good) *pair = spare;
  return good;
}

int open_pair(Pair* pair) {
  int ends[2];
  long result = sys(SYS_socketpair, AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends);
  if (result < 0) return static_cast<int>(result);
  *pair = {ends[0], ends[1]};
  return 0;
}

void wait(pollfd* fds, unsigned count) {
  while (sys(SYS_ppoll, fds, count, nullptr, nullptr, 0) == -EINTR) continue;
}

// 0 or -errno.
long send_request(const Request& request, int reply) {
  iovec parts[1 + kMostParts];
  auto head = request.head->bytes();
  parts[0] = {const_cast<std::byte*>(head.data()), head.size()};
  if (request.body_parts > kMostParts) return -EINVAL;
  std::copy_n(request.body, request.body_parts, parts + 1);
  int fds[2] = {reply, request.passed};
  size_t fds_size = sizeof(int) * (request.passed < 0 ? 1 : 2);
  alignas(cmsghdr) std::byte control[CMSG_SPACE(sizeof fds)] = {};
  msghdr message{};
  message.msg_iov = parts;
  message.msg_iovlen = 1 + request.body_parts;
  message.msg_control = control;
  message.msg_controllen = CMSG_SPACE(fds_size);
  cmsghdr* rights = CMSG_FIRSTHDR(&message);
  *rights = {CMSG_LEN(fds_size), SOL_SOCKET, SCM_RIGHTS};
  std::memcpy(CMSG_DATA(rights), fds, fds_size);
  for (;;) {
    long sent = sys(SYS_sendmsg, request.socket, &message, MSG_NOSIGNAL);
    if (sent >= 0) return 0;
    if (sent == -EAGAIN) {  // the program made the descriptor non-blocking: that is not about us
      pollfd room{request.socket, POLLOUT, 0};
      wait(&room, 1);
    } else if (sent != -EINTR) {
      return sent == -EFAULT ? -EFAULT : -EIO;
    }
  }
}

// -EAGAIN: nothing there yet, with MSG_DONTWAIT.
long receive_answer(int reply, const Request& request, int flags, Answer* answer) {
  std::byte head[ch::kHeaderSize];
  iovec parts[2] = {{head, sizeof head}, {request.out, request.out_size}};
  alignas(cmsghdr) std::byte control[CMSG_SPACE(sizeof(int))];
  msghdr message{};
  message.msg_iov = parts;
  message.msg_iovlen = 2;
  message.msg_control = control;
  message.msg_controllen = sizeof control;
  long got;
  do {
    got = sys(SYS_recvmsg, reply, &message, flags | MSG_CMSG_CLOEXEC);
  } while (got == -EINTR);
  if (got <= 0) return got == -EFAULT || got == -EAGAIN ? got : -EIO;
  cmsghdr* rights = CMSG_FIRSTHDR(&message);
  if (rights && rights->cmsg_level == SOL_SOCKET && rights->cmsg_type == SCM_RIGHTS)
    std::memcpy(&answer->passed, CMSG_DATA(rights), sizeof answer->passed);
  if (static_cast<size_t>(got) < sizeof head || (message.msg_flags & MSG_TRUNC)) return -EIO;
  answer->flags = load_le<uint16_t>(head + 2);
  answer->result = load_le<int64_t>(head + 16);
  answer->size = static_cast<size_t>(got) - sizeof head;
  return 0;
}

// The other end of the spare pair is ours as well, so hydrantd's death shows on the descriptor alone.
long receive_on_spare(const Request& request, Answer* answer) {
  for (;;) {
    pollfd either[2] = {{spare.ours, POLLIN, 0}, {request.socket, 0, 0}};
    wait(either, 2);
    long result = receive_answer(spare.ours, request, MSG_DONTWAIT, answer);
    if (result != -EAGAIN) return result;
    if (either[1].revents) return -EIO;
  }
}

}  // namespace

Answer call(const Request& request) {
  Answer answer;
  Pair pair;
  int full = open_pair(&pair);
  bool is_spare = full != 0;
  if (is_spare) {
    if (request.keep_reply || !take_spare(&pair)) return answer.result = full, answer;
    // What is left of a call that did not wait for its answer.
    Answer stale;
    while (receive_answer(pair.ours, {}, MSG_DONTWAIT, &stale) != -EAGAIN)
      if (stale.passed >= 0) sys(SYS_close, std::exchange(stale.passed, -1));
  }
  long failed = send_request(request, pair.theirs);
  answer.sent = !failed;
  if (!is_spare) sys(SYS_close, pair.theirs);
  if (!failed) failed = is_spare ? receive_on_spare(request, &answer) : receive_answer(pair.ours, request, 0, &answer);
  if (failed) answer.result = failed;
  if (is_spare)
    spare_free.store(true);
  else if (request.keep_reply && !failed)
    answer.reply = pair.ours;
  else
    sys(SYS_close, pair.ours);
  return answer;
}

void make_spare() {
  if (spare_free.load() && spare_owner == sys(SYS_getpid) && inode(spare.ours) == spare_inodes[0]) return;
  Pair pair;
  if (open_pair(&pair)) return;
  spare_free.store(false);
  spare = {move_away(pair.ours), move_away(pair.theirs)};
  spare_inodes[0] = inode(spare.ours);
  spare_inodes[1] = inode(spare.theirs);
  spare_owner = static_cast<pid_t>(sys(SYS_getpid));
  spare_free.store(true);
}

int move_away(int fd) {
  rlimit limit{};
  sys(SYS_prlimit64, 0, RLIMIT_NOFILE, nullptr, &limit);
  // The upper part of the table, but within what select can name of a descriptor if the table is large.
  rlim_t from = std::min<rlim_t>(limit.rlim_cur / 4 * 3, 1000);
  long moved = sys(SYS_fcntl, fd, F_DUPFD_CLOEXEC, static_cast<long>(from));
  if (moved < 0) return fd;
  copied(fd, static_cast<int>(moved));
  sys(SYS_close, fd);
  return static_cast<int>(moved);
}

}  // namespace hydrant::shim
