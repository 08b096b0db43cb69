#include "cachefiles/disk.h"

#include <unistd.h>

#include "base/file.h"

namespace hydrant::cachefiles {
namespace {
std::atomic<unsigned> injection{0};
}

int Disk::statfs(int fd, struct statfs* out) { return ::fstatfs(fd, out) == 0 ? 0 : -errno; }
ssize_t Disk::write(int fd, const struct iovec* parts, int count, off_t offset) {
  ssize_t done = ::pwritev(fd, parts, count, offset);
  return done < 0 ? -errno : done;
}
int Disk::sync_data(int fd) { return ::fdatasync(fd) == 0 ? 0 : -errno; }
Result<> Disk::replace_file(const std::string& path, Bytes contents) { return write_file_atomic(path, contents); }

Disk& Disk::system() {
  static Disk disk;
  return disk;
}

void set_error_injection(unsigned mask) { injection.store(mask, std::memory_order_relaxed); }
unsigned error_injection() { return injection.load(std::memory_order_relaxed); }

}  // namespace hydrant::cachefiles
