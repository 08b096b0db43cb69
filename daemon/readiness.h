// A descriptor that shows to poll, select and epoll what a channel's poll would say, for processes that hold it.
#pragma once

#include <cstdint>

#include "base/error.h"
#include "base/fd.h"
#include "proto/device.h"

namespace hydrant::daemon {

// One end of a socket pair, of which we keep both: IN stands for a byte that waits in it, OUT for room to send, and
// both come and go at our end alone. The kernel then does the waiting, in any process and any mixture with other
// descriptors. Owned by one thread.
class Readiness {
 public:
  // `id` of the device it belongs to (proto/device.h).
  static Result<Readiness> create(uint64_t id);

  // Makes it show `mask` (EPOLLIN, EPOLLOUT) before it returns. Each call with IN wakes waiters once more, as each wake
  // of the kernel's queue does: edge-triggered pollers go by that. Never in between does a set bit look clear.
  void show(unsigned mask);
  // What is passed to processes.
  int descriptor() const { return shown_.get(); }

 private:
  Readiness(Fd ours, Fd shown) : ours_(std::move(ours)), shown_(std::move(shown)) {}
  void fill();
  Fd ours_;
  Fd shown_;
  unsigned mask_ = 0;
};

// Binds our end of a pair to an abstract name, by which the holders of the other end know it. 0 or -errno.
int name_socket(int socket, const proto::device::Name& name);

}  // namespace hydrant::daemon
