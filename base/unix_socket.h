// UNIX sockets with one convention: every descriptor is close-on-exec and non-blocking, every wait has a deadline.
// Connection set-up serves stream and packet sockets alike; messages with descriptors are for packet sockets
// (lines over a stream: line_socket.h).
#pragma once

#include <sys/types.h>
#include <sys/uio.h>

#include <array>
#include <span>
#include <string>
#include <utility>

#include "base/bytes.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/fd.h"

namespace hydrant {

enum class SocketType { kStream, kSeqPacket };

// Who was at the other end when the connection was made (SO_PEERCRED); a later exec or setuid does not change it.
struct PeerCredentials {
  pid_t pid = 0;
  uid_t uid = 0;
  gid_t gid = 0;
};

// Binds and listens. A socket file that nobody listens on any more is replaced; a live one is kBusy. A path of more
// than 107 bytes is kInvalid. `mode` holds from the moment the file exists.
Result<Fd> listen_unix(const std::string& path, SocketType type, unsigned mode = 0600);
// kNotFound: no socket file. kUnreachable: nobody listens on it. kTooSlow: its backlog stayed full until the deadline.
Result<Fd> connect_unix(const std::string& path, SocketType type, Deadline deadline);
// An empty Fd when no connection waits.
Result<Fd> accept_unix(int listener);
Result<PeerCredentials> peer_credentials(int socket);
Result<std::pair<Fd, Fd>> socket_pair(SocketType type);

// Waits until `fd` shows one of `events` (POLLIN, POLLOUT) or hangs up. False when the deadline passed first.
bool wait_fd(int fd, short events, Deadline deadline);

inline constexpr size_t kMaxPassedFds = 4;

// One message as it arrived.
struct Packet {
  size_t size = 0;         // bytes stored
  bool truncated = false;  // the message was longer than the buffer, or carried more than kMaxPassedFds descriptors
  size_t fd_count = 0;
  std::array<Fd, kMaxPassedFds> fds;
};

// These two are called once a frame, so they report as the system call does: bytes, or a negative errno (-EAGAIN: would
// block). Neither waits. A send to a closed peer is -EPIPE, never a signal.
// `head` and `body` go out as one message; either may be empty, not both.
int64_t send_packet(int socket, Bytes head, Bytes body = {}, std::span<const int> fds = {});
// The same for a message in many parts.
int64_t send_parts(int socket, std::span<const iovec> parts, std::span<const int> fds = {});
// 0 is the end of the connection (or an empty message, which no protocol of ours has).
int64_t receive_packet(int socket, MutableBytes out, Packet* packet);

}  // namespace hydrant
