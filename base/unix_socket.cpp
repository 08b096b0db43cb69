#include "base/unix_socket.h"

#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include <cerrno>

namespace hydrant {
namespace {

int type_flags(SocketType type) {
  return (type == SocketType::kStream ? SOCK_STREAM : SOCK_SEQPACKET) | SOCK_CLOEXEC | SOCK_NONBLOCK;
}

Result<sockaddr_un> address_of(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.empty() || path.size() >= sizeof address.sun_path)
    return fail(Code::kInvalid, "socket path " + path + " must have 1 to 107 bytes");
  std::memcpy(address.sun_path, path.data(), path.size());
  return address;
}

Result<Fd> new_socket(SocketType type) {
  Fd fd(::socket(AF_UNIX, type_flags(type), 0));
  if (!fd) return fail_sys(errno, "socket");
  return fd;
}

const sockaddr* as_sockaddr(const sockaddr_un& address) { return reinterpret_cast<const sockaddr*>(&address); }

}  // namespace

Result<Fd> listen_unix(const std::string& path, SocketType type, unsigned mode) {
  HYDRANT_TRY(sockaddr_un address, address_of(path));
  HYDRANT_TRY(Fd fd, new_socket(type));
  // Linux gives the socket file the mode of the socket, less the umask: there is no moment of wider access.
  if (::fchmod(fd.get(), mode)) return fail_sys(errno, "chmod " + path);
  if (::bind(fd.get(), as_sockaddr(address), sizeof address)) {
    if (errno != EADDRINUSE) return fail_sys(errno, "bind " + path);
    HYDRANT_TRY(Fd probe, new_socket(type));
    int refused = ::connect(probe.get(), as_sockaddr(address), sizeof address) ? errno : 0;
    if (refused != ECONNREFUSED) return fail_sys(EBUSY, path + " is served by another process");
    if (::unlink(path.c_str()) && errno != ENOENT) return fail_sys(errno, "unlink " + path);
    if (::bind(fd.get(), as_sockaddr(address), sizeof address)) return fail_sys(errno, "bind " + path);
  }
  if (::listen(fd.get(), 128)) return fail_sys(errno, "listen " + path);
  return fd;
}

Result<Fd> connect_unix(const std::string& path, SocketType type, Deadline deadline) {
  HYDRANT_TRY(sockaddr_un address, address_of(path));
  HYDRANT_TRY(Fd fd, new_socket(type));
  while (::connect(fd.get(), as_sockaddr(address), sizeof address)) {
    if (errno == EINTR) continue;
    if (errno != EAGAIN) return fail_sys(errno, "connect " + path);
    // A full backlog cannot be polled for; it drains as fast as the server accepts.
    if (deadline.passed()) return fail_sys(ETIMEDOUT, "connect " + path);
    ::poll(nullptr, 0, std::min(deadline.left_ms(), 2));
  }
  return fd;
}

Result<Fd> accept_unix(int listener) {
  for (;;) {
    Fd fd(::accept4(listener, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
    if (fd) return fd;
    if (errno == EINTR || errno == ECONNABORTED) continue;
    if (errno == EAGAIN) return Fd();
    return fail_sys(errno, "accept");
  }
}

Result<PeerCredentials> peer_credentials(int socket) {
  ucred raw{};
  socklen_t size = sizeof raw;
  if (::getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &raw, &size)) return fail_sys(errno, "peer credentials");
  return PeerCredentials{raw.pid, raw.uid, raw.gid};
}

Result<std::pair<Fd, Fd>> socket_pair(SocketType type) {
  int ends[2];
  if (::socketpair(AF_UNIX, type_flags(type), 0, ends)) return fail_sys(errno, "socketpair");
  return std::pair(Fd(ends[0]), Fd(ends[1]));
}

bool wait_fd(int fd, short events, Deadline deadline) {
  pollfd one{fd, events, 0};
  for (;;) {
    int n = ::poll(&one, 1, deadline.left_ms());
    if (n > 0) return true;
    if (n == 0 && deadline.passed()) return false;
    if (n < 0 && errno != EINTR) return true;  // let the caller's next call on fd report it
  }
}

int64_t send_packet(int socket, Bytes head, Bytes body, std::span<const int> fds) {
  iovec parts[2] = {{const_cast<std::byte*>(head.data()), head.size()},
                    {const_cast<std::byte*>(body.data()), body.size()}};
  return send_parts(socket, std::span(parts, body.empty() ? 1 : 2), fds);
}

int64_t send_parts(int socket, std::span<const iovec> parts, std::span<const int> fds) {
  alignas(cmsghdr) std::byte control[CMSG_SPACE(sizeof(int) * kMaxPassedFds)];
  msghdr message{};
  message.msg_iov = const_cast<iovec*>(parts.data());
  message.msg_iovlen = parts.size();
  if (fds.size() > kMaxPassedFds) return -EINVAL;
  if (!fds.empty()) {
    message.msg_control = control;
    message.msg_controllen = CMSG_SPACE(fds.size_bytes());
    cmsghdr* rights = CMSG_FIRSTHDR(&message);
    *rights = {CMSG_LEN(fds.size_bytes()), SOL_SOCKET, SCM_RIGHTS};
    std::memcpy(CMSG_DATA(rights), fds.data(), fds.size_bytes());
  }
  for (;;) {
    ssize_t n = ::sendmsg(socket, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (n >= 0) return n;
    if (errno != EINTR) return -errno;
  }
}

int64_t receive_packet(int socket, MutableBytes out, Packet* packet) {
  *packet = {};
  iovec part{out.data(), out.size()};
  alignas(cmsghdr) std::byte control[CMSG_SPACE(sizeof(int) * kMaxPassedFds)];
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof control;
  ssize_t n;
  do {
    n = ::recvmsg(socket, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
  } while (n < 0 && errno == EINTR);
  if (n < 0) return -errno;
  packet->size = static_cast<size_t>(n);
  packet->truncated = message.msg_flags & (MSG_TRUNC | MSG_CTRUNC);
  for (cmsghdr* at = CMSG_FIRSTHDR(&message); at; at = CMSG_NXTHDR(&message, at)) {
    if (at->cmsg_level != SOL_SOCKET || at->cmsg_type != SCM_RIGHTS) continue;
    size_t count = (at->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (size_t i = 0; i < count; ++i) {
      int fd;
      std::memcpy(&fd, CMSG_DATA(at) + i * sizeof fd, sizeof fd);
      // The control buffer has room for kMaxPassedFds, padding included, so the index stays inside.
      packet->fds[packet->fd_count++].reset(fd);
    }
  }
  return n;
}

}  // namespace hydrant
