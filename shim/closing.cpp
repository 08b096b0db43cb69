#include "shim/closing.h"

#include <poll.h>
#include <sys/socket.h>

#include <cstring>

#include "shim/identity.h"
#include "shim/readiness.h"
#include "shim/sys.h"

namespace hydrant::shim {

Closing::Closing(int fd) {
  Name name;
  if (!identify(fd, &name) || (name.kind != Kind::kDevice && name.kind != Kind::kHandle)) return;
  if (name.kind == Kind::kDevice) forget_registrations(fd);
  int ends[2];
  if (sys(SYS_socketpair, AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) < 0) return;
  auto head = proto::device::encode_bare(proto::channel::Op::kClosing, 1);
  iovec part{const_cast<std::byte*>(head.bytes().data()), head.bytes().size()};
  alignas(cmsghdr) std::byte control[CMSG_SPACE(sizeof(int))] = {};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof control;
  cmsghdr* rights = CMSG_FIRSTHDR(&message);
  *rights = {CMSG_LEN(sizeof(int)), SOL_SOCKET, SCM_RIGHTS};
  std::memcpy(CMSG_DATA(rights), &ends[1], sizeof(int));
  long sent = sys(SYS_sendmsg, fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
  sys(SYS_close, ends[1]);
  told_ = ends[0];
  if (sent < 0) sys(SYS_close, ends[0]), told_ = -1;
}

Closing::~Closing() {
  if (told_ < 0) return;
  sys(SYS_sendto, told_, "", 1, MSG_NOSIGNAL, nullptr, 0);
  // Its end goes when it is done. A disk that is stuck does not keep a program from closing for ever.
  timespec patience{10, 0};
  pollfd end{told_, POLLIN, 0};
  while (sys(SYS_ppoll, &end, 1, &patience, nullptr, 0) == -EINTR) continue;
  sys(SYS_close, told_);
}

bool is_hidden(int fd) {
  Name name;
  return identify(fd, &name) && (name.kind == Kind::kReadiness || name.kind == Kind::kHold);
}

}  // namespace hydrant::shim
