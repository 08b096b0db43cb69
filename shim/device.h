// What the calls of a program on its open /dev/cachefiles do. Results are the kernel's: a count or a negative errno.
#pragma once

#include <sys/types.h>
#include <sys/uio.h>

#include "shim/identity.h"

namespace hydrant::shim {

// Whether `path` is what we stand for, and an engine is known.
bool is_device_path(const char* path);

long device_open(int flags);
long device_read(int fd, const Name& name, void* buffer, size_t size);
long device_write(int fd, const Name& name, const void* buffer, size_t size);
// The kernel's device has no vectored calls of its own: each part is a read or a write.
long device_readv(int fd, const Name& name, const iovec* parts, int count);
long device_writev(int fd, const Name& name, const iovec* parts, int count);
// Accepted, and does nothing.
long device_lseek(int whence);

// The length of an iovec's bytes, as the kernel checks it: -EINVAL when it cannot be.
long total_of(const iovec* parts, int count);

}  // namespace hydrant::shim
