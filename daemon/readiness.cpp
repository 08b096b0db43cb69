#include "daemon/readiness.h"

#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>

#include "base/bytes.h"
#include "base/unix_socket.h"

namespace hydrant::daemon {

namespace {

constexpr int kLeastBuffer = 1;  // the kernel makes it its minimum: two or three small messages fill it
const std::byte kByte{};

bool take_one(int socket) {
  std::byte byte;
  return ::recv(socket, &byte, 1, MSG_DONTWAIT) > 0;
}

}  // namespace

Result<Readiness> Readiness::create(uint64_t id) {
  HYDRANT_TRY(auto pair, socket_pair(SocketType::kSeqPacket));
  if (int err = name_socket(pair.first.get(), {.kind = proto::device::Kind::kReadiness, .access = 0, .id = id}))
    return fail_sys(-err, "name a socket");
  ::setsockopt(pair.second.get(), SOL_SOCKET, SO_SNDBUF, &kLeastBuffer, sizeof kLeastBuffer);
  Readiness readiness(std::move(pair.first), std::move(pair.second));
  readiness.fill();
  return readiness;
}

// Linux calls a UNIX socket writable while what it sent and nobody took is at most a quarter of its buffer; a send
// fails only at the whole (all versions; tests/shim asks the running kernel).
void Readiness::fill() {
  while (::send(shown_.get(), &kByte, 1, MSG_DONTWAIT | MSG_NOSIGNAL) > 0) continue;
}

void Readiness::show(unsigned mask) {
  bool in = mask & EPOLLIN, was_in = mask_ & EPOLLIN;
  if (in) (void)::send(ours_.get(), &kByte, 1, MSG_DONTWAIT | MSG_NOSIGNAL);
  if (was_in) take_one(shown_.get());
  bool out = mask & EPOLLOUT, was_out = mask_ & EPOLLOUT;
  if (out && !was_out)
    while (take_one(ours_.get())) continue;
  if (!out && was_out) fill();
  mask_ = mask;
}

int name_socket(int socket, const proto::device::Name& name) {
  auto text = proto::device::encode_name(name);
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::copy(text.begin(), text.end(), address.sun_path + 1);
  auto size = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + 1 + text.size());
  return ::bind(socket, reinterpret_cast<const sockaddr*>(&address), size) ? -errno : 0;
}

}  // namespace hydrant::daemon
