#include "base/descriptor_store.h"

#include <sys/socket.h>
#include <sys/un.h>

#include <cerrno>
#include <cstdlib>

#include "base/log.h"
#include "base/unix_socket.h"

namespace hydrant {

namespace {

constexpr int kFirstPassed = 3;  // SD_LISTEN_FDS_START

std::string take_variable(const char* name) {
  const char* value = ::getenv(name);
  std::string text = value ? value : "";
  ::unsetenv(name);
  return text;
}

}  // namespace

DescriptorStore DescriptorStore::from_environment() {
  DescriptorStore store;
  store.address_ = take_variable("NOTIFY_SOCKET");
  std::string pid = take_variable("LISTEN_PID"), count = take_variable("LISTEN_FDS");
  std::string names = take_variable("LISTEN_FDNAMES");
  if (!store.address_.empty()) store.connect();
  if (pid != std::to_string(::getpid())) return store;
  size_t at = 0;
  for (int i = 0, n = std::atoi(count.c_str()); i < n; ++i) {
    size_t end = std::min(names.find(':', at), names.size());
    Fd fd(kFirstPassed + i);
    if (::fcntl(fd.get(), F_SETFD, FD_CLOEXEC)) {
      log::warn("passed-descriptor-missing", {{"number", fd.get()}});
      (void)fd.release();
    } else if (at <= end) {
      store.left_.insert_or_assign(names.substr(at, end - at), std::move(fd));
    }
    at = end + 1;
    if (at > names.size()) at = names.size();
  }
  return store;
}

bool DescriptorStore::connect() {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (address_.size() >= sizeof address.sun_path) {
    log::warn("descriptor-store-path-too-long", {{"path", address_}});
    address_.clear();
    return false;
  }
  std::memcpy(address.sun_path, address_.data(), address_.size());
  if (address_[0] == '@') address.sun_path[0] = 0;
  socket_.reset(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  timeval patience{.tv_sec = 2, .tv_usec = 0};  // a holder that stands still is none
  auto size = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + address_.size());
  if (socket_ && ::setsockopt(socket_.get(), SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience) == 0 &&
      ::connect(socket_.get(), reinterpret_cast<const sockaddr*>(&address), size) == 0)
    return true;
  socket_.reset();
  return false;
}

bool DescriptorStore::send(std::string_view text, const Fd* fd) {
  if (!socket_) return false;
  iovec part{const_cast<char*>(text.data()), text.size()};
  alignas(cmsghdr) std::byte control[CMSG_SPACE(sizeof(int))] = {};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  if (fd) {
    int number = fd->get();
    message.msg_control = control;
    message.msg_controllen = sizeof control;
    cmsghdr* rights = CMSG_FIRSTHDR(&message);
    *rights = {CMSG_LEN(sizeof number), SOL_SOCKET, SCM_RIGHTS};
    std::memcpy(CMSG_DATA(rights), &number, sizeof number);
  }
  while (::sendmsg(socket_.get(), &message, MSG_NOSIGNAL) < 0) {
    if (errno == EINTR) continue;
    log::warn("descriptor-store-lost", {{"errno", errno}});
    socket_.reset();
    return false;
  }
  return true;
}

Fd DescriptorStore::take(const std::string& name) {
  std::lock_guard lock(*mutex_);
  auto at = left_.find(name);
  if (at == left_.end()) return Fd();
  Fd fd = std::move(at->second);
  left_.erase(at);
  return fd;
}

void DescriptorStore::keep_off(const std::set<int>& numbers) {
  std::lock_guard lock(*mutex_);
  socket_.keep_off(numbers);
  for (auto* each : {&left_, &held_})
    for (auto& [name, fd] : *each) fd.keep_off(numbers);
}

bool DescriptorStore::put(const std::string& name, Fd fd) {
  std::lock_guard lock(*mutex_);
  if (address_.empty() || !fd) return false;
  Fd& kept = held_[name] = std::move(fd);
  return send("FDSTORE=1\nFDPOLL=0\nFDNAME=" + name + "\n", &kept);
}

bool DescriptorStore::held_elsewhere() {
  std::lock_guard lock(*mutex_);
  return send("WATCHDOG=1\n");
}

void DescriptorStore::leave(const std::string& name) {
  std::lock_guard lock(*mutex_);
  held_.erase(name);
}

void DescriptorStore::drop_left(std::initializer_list<const char*> names) {
  std::lock_guard lock(*mutex_);
  for (const char* name : names) {
    left_.erase(name);
    send("FDSTOREREMOVE=1\nFDNAME=" + std::string(name) + "\n");
  }
}

// A holder that came after the one we know is given everything first: what it was never given it cannot see go.
void DescriptorStore::drop() {
  std::lock_guard lock(*mutex_);
  find_holder();
  for (auto& [name, fd] : held_) send("FDSTOREREMOVE=1\nFDNAME=" + name + "\n");
  held_.clear();
  left_.clear();
}

void DescriptorStore::ready() {
  std::lock_guard lock(*mutex_);
  ready_ = true;
  send("READY=1\n");
}

void DescriptorStore::check() {
  std::lock_guard lock(*mutex_);
  find_holder();
}

void DescriptorStore::find_holder() {
  if (address_.empty() || (socket_ && send("WATCHDOG=1\n"))) return;
  if (!connect()) return;
  for (auto& [name, fd] : held_) send("FDSTORE=1\nFDPOLL=0\nFDNAME=" + name + "\n", &fd);
  if (ready_) send("READY=1\n");
  log::info("descriptor-store-found-again", {{"descriptors", held_.size()}});
}

}  // namespace hydrant
