#include "shim/identity.h"

#include <sys/socket.h>
#include <sys/un.h>

#include <algorithm>
#include <atomic>
#include <cstddef>

#include "shim/sys.h"

namespace hydrant::shim {
namespace {

enum Hint : uint8_t {
  kUnknown,  // not asked yet
  kForeign,  // was asked once, and nothing has happened to the number that could make it ours
  kMaybe,    // was ours once: asked each time
};
constinit std::atomic<uint8_t> hints[kMaxFd];
constinit std::atomic<int> highest_ours{-1};

bool ask(int fd, Name* name) {
  sockaddr_un address;
  socklen_t size = sizeof address;
  if (sys(SYS_getpeername, fd, &address, &size) < 0) return false;
  constexpr size_t kStart = offsetof(sockaddr_un, sun_path) + 1;
  if (address.sun_family != AF_UNIX || size <= kStart || size > sizeof address || address.sun_path[0]) return false;
  auto found = proto::device::decode_name({address.sun_path + 1, size - kStart});
  if (!found) return false;
  *name = *found;
  return true;
}

void set(int fd, uint8_t hint) {
  if (hint == kMaybe)
    for (int high = highest_ours.load(); fd > high && !highest_ours.compare_exchange_weak(high, fd);) continue;
  hints[fd].store(hint);
}

bool in_range(int fd) { return fd >= 0 && fd < kMaxFd; }

}  // namespace

bool identify(int fd, Name* name) {
  if (!in_range(fd)) return false;
  uint8_t hint = hints[fd].load(std::memory_order_relaxed);
  if (hint == kForeign) return false;
  bool ours = ask(fd, name);
  // Only if nobody has said otherwise meanwhile: the number may just have been given away anew.
  if (hint == kUnknown && !ours) hints[fd].compare_exchange_strong(hint, kForeign);
  if (hint == kUnknown && ours) set(fd, kMaybe);
  return ours;
}

void fresh(int fd) {
  if (in_range(fd) && hints[fd].load() == kForeign) hints[fd].store(kUnknown);
}

void copied(int fd, int copy) {
  if (!in_range(copy)) return;
  if (in_range(fd) && hints[fd].load() == kForeign) return;
  fresh(copy);
}

int sweep_end() { return std::max(highest_ours.load(), 1023) + 1; }

}  // namespace hydrant::shim
