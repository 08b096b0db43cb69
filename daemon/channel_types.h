// What the parts of the channel server share: why connections end, and the windows of a client.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string_view>

#include "base/bytes.h"
#include "base/fd.h"
#include "proto/channel.h"

namespace hydrant::daemon {

enum class CloseReason {
  kPeer,         // the client closed it: the only one that is not a fault
  kDenied,       // credentials
  kTooMany,      // more connections than allowed
  kSilent,       // no HELLO in time
  kMalformed,    // torn, too long, unknown op, wrong flags or values
  kDescriptors,  // descriptors where none belong, or the wrong number
  kFlood,        // more waiting requests than allowed
  kDisorder,     // an op that does not belong here: HELLO twice, PWRITE on a control socket
  kTransport,    // the socket reported an error
  kCount,
};
std::string_view to_string(CloseReason reason);

// Thread-safe.
class CloseCounters {
 public:
  void add(CloseReason reason) { counts_[size_t(reason)].fetch_add(1, std::memory_order_relaxed); }
  uint64_t get(CloseReason reason) const { return counts_[size_t(reason)].load(std::memory_order_relaxed); }

 private:
  std::array<std::atomic<uint64_t>, size_t(CloseReason::kCount)> counts_{};
};

// The other end of a connection is closed.
bool hung_up(int socket);
// 0, -ENOTDIR or -errno. Does not ask a remote file system: that could wait.
int check_directory(int fd);

// A client's memory, mapped read-only. The server itself never loads from it: only system calls read it, which report
// a page that cannot be had as EFAULT where a load would be a signal. Pages that were used stay mapped until the client
// gives them back, as it does when idle: unmapping them after each write cost as much as the write.
class WindowMapping {
 public:
  WindowMapping(const std::byte* at, size_t size) : bytes_(at, size) {}
  WindowMapping(const WindowMapping&) = delete;
  ~WindowMapping();
  Bytes bytes() const { return bytes_; }

 private:
  Bytes bytes_;
};

// The windows of one connection. Thread-safe: added by the loop thread, used by handle threads.
class Windows {
 public:
  // 0, or -EEXIST (id in use), -EPERM (no memfd that is sealed against shrinking), -EINVAL (size), -ENOMEM.
  int add(uint32_t id, Fd memory);
  // Null when there is no such window. The mapping stays while it is held.
  std::shared_ptr<const WindowMapping> get(uint32_t id) const;
  // What a PWRITE from a window writes; null and empty where it lies outside, as a bad pointer would to the kernel. The
  // decoder has checked that the sum of offset and length is one. The bytes are valid while the mapping is held.
  std::pair<std::shared_ptr<const WindowMapping>, Bytes> find(const proto::channel::Pwrite& pwrite) const;

 private:
  mutable std::mutex mutex_;
  std::array<std::shared_ptr<const WindowMapping>, proto::channel::kMaxWindows> mappings_;
};

}  // namespace hydrant::daemon
