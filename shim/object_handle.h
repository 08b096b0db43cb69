// What the calls of a program on an object's anonymous descriptor do (spec 6.8). Results are the kernel's.
#pragma once

#include <sys/types.h>
#include <sys/uio.h>

#include <optional>

namespace hydrant::shim {

// At `offset`, or without one at the handle's own position. Any size; one operation for the engine up to 64 MiB.
long handle_writev(int fd, const iovec* parts, int count, std::optional<off_t> offset);
inline long handle_write(int fd, const void* bytes, size_t size, std::optional<off_t> offset) {
  iovec part{const_cast<void*>(bytes), size};
  return handle_writev(fd, &part, 1, offset);
}
long handle_lseek(int fd, off_t offset, int whence);
long handle_ioctl(int fd, unsigned long number, unsigned long argument);

}  // namespace hydrant::shim
