#include "daemon/channel_types.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include <cerrno>

#include "base/byte_range.h"

namespace hydrant::daemon {

std::string_view to_string(CloseReason reason) {
  switch (reason) {
    case CloseReason::kPeer: return "peer";
    case CloseReason::kDenied: return "denied";
    case CloseReason::kTooMany: return "too-many";
    case CloseReason::kSilent: return "silent";
    case CloseReason::kMalformed: return "malformed";
    case CloseReason::kDescriptors: return "descriptors";
    case CloseReason::kFlood: return "flood";
    case CloseReason::kDisorder: return "disorder";
    case CloseReason::kTransport: return "transport";
    case CloseReason::kCount: break;
  }
  return "unknown";
}

bool hung_up(int socket) {
  pollfd one{socket, POLLRDHUP, 0};
  return ::poll(&one, 1, 0) > 0 && (one.revents & (POLLHUP | POLLRDHUP | POLLERR));
}

int check_directory(int fd) {
  struct statx status {};
  if (::statx(fd, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, STATX_TYPE, &status)) return -errno;
  return S_ISDIR(status.stx_mode) ? 0 : -ENOTDIR;
}

WindowMapping::~WindowMapping() { ::munmap(const_cast<std::byte*>(bytes_.data()), bytes_.size()); }

int Windows::add(uint32_t id, Fd memory) {
  // Only memfds have seals: this also keeps out files whose pages come from a disk or from another process.
  int seals = ::fcntl(memory.get(), F_GET_SEALS);
  if (seals < 0 || !(seals & F_SEAL_SHRINK)) return -EPERM;
  struct stat status {};
  if (::fstat(memory.get(), &status)) return -errno;
  if (status.st_size <= 0 || uint64_t(status.st_size) > proto::channel::kMaxWindowSize) return -EINVAL;
  auto size = size_t(status.st_size);
  std::lock_guard lock(mutex_);
  if (mappings_[id]) return -EEXIST;
  void* at = ::mmap(nullptr, size, PROT_READ, MAP_SHARED, memory.get(), 0);
  if (at == MAP_FAILED) return -errno;
  mappings_[id] = std::make_shared<WindowMapping>(static_cast<const std::byte*>(at), size);
  return 0;
}

std::shared_ptr<const WindowMapping> Windows::get(uint32_t id) const {
  std::lock_guard lock(mutex_);
  return mappings_[id];
}

std::pair<std::shared_ptr<const WindowMapping>, Bytes> Windows::find(const proto::channel::Pwrite& pwrite) const {
  auto window = get(pwrite.window);
  if (!window || pwrite.window_offset + pwrite.length > window->bytes().size()) return {};
  Bytes bytes = window->bytes().subspan(pwrite.window_offset, pwrite.length);
  return {std::move(window), bytes};
}

}  // namespace hydrant::daemon
