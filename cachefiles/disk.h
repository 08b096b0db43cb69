// The calls on the backing file system that tests replace, and error injection for all of them.
#pragma once

#include <sys/statfs.h>
#include <sys/uio.h>

#include <atomic>
#include <cerrno>
#include <string>

#include "base/bytes.h"
#include "base/error.h"

namespace hydrant::cachefiles {

// What decides about space and durability. The defaults are the system's. Thread-safe; outlives the engine.
class Disk {
 public:
  virtual ~Disk() = default;
  virtual int statfs(int fd, struct statfs* out);                                     // 0 or -errno
  virtual ssize_t write(int fd, const struct iovec* parts, int count, off_t offset);  // pwritev; bytes or -errno
  virtual int sync_data(int fd);                                                      // fdatasync; 0 or -errno
  virtual Result<> replace_file(const std::string& path, Bytes contents);             // durable when it returns
  static Disk& system();
};

// Process-wide error injection (spec 10.1), a mask: 1 makes operations that write fail with ENOSPC, 2 makes all
// operations fail with EIO.
void set_error_injection(unsigned mask);
unsigned error_injection();

// The injected error of an operation of that class, 0 for none.
inline int inject_read() { return error_injection() & 2 ? -EIO : 0; }
inline int inject_write() { return error_injection() & 2 ? -EIO : error_injection() & 1 ? -ENOSPC : 0; }
inline int inject_remove() { return inject_read(); }

}  // namespace hydrant::cachefiles
