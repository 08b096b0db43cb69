// open, read, write, seek, ioctl.
#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/sendfile.h>
#include <sys/uio.h>

#include <algorithm>
#include <cstdarg>
#include <cstdio>
#include <optional>

#include "shim/device.h"
#include "shim/identity.h"
#include "shim/interpose.h"
#include "shim/object_handle.h"
#include "shim/real.h"
#include "shim/sys.h"

namespace {

using namespace hydrant::shim;

HYDRANT_REAL(open);
HYDRANT_REAL(openat);
HYDRANT_REAL(read);
HYDRANT_REAL(readv);
HYDRANT_REAL(pread);
HYDRANT_REAL(preadv);
HYDRANT_REAL(preadv2);
HYDRANT_REAL(write);
HYDRANT_REAL(writev);
HYDRANT_REAL(pwrite);
HYDRANT_REAL(pwritev);
HYDRANT_REAL(pwritev2);
HYDRANT_REAL(lseek);
HYDRANT_REAL(ioctl);
HYDRANT_REAL(sendfile);
HYDRANT_REAL(splice);
HYDRANT_REAL(copy_file_range);
HYDRANT_REAL(vdprintf);
// Names of the fortified functions, which no header declares.
constinit Real<int(const char*, int)> real___open_2("__open_2");
constinit Real<int(int, const char*, int)> real___openat_2("__openat_2");
constinit Real<ssize_t(int, void*, size_t, size_t)> real___read_chk("__read_chk");
constinit Real<ssize_t(int, void*, size_t, off_t, size_t)> real___pread_chk("__pread_chk");

bool opens_device(const char* path, int flags) { return !(flags & O_PATH) && is_device_path(path); }
bool takes_mode(int flags) { return (flags & O_CREAT) || (flags & O_TMPFILE) == O_TMPFILE; }
mode_t mode_of(int flags, va_list arguments) { return takes_mode(flags) ? va_arg(arguments, mode_t) : 0; }

ssize_t read_ours(int fd, const Name& name, void* buffer, size_t size) {
  // Objects are written, never read.
  return to_libc(name.kind == Kind::kDevice ? device_read(fd, name, buffer, size) : -EBADF);
}
ssize_t readv_ours(int fd, const Name& name, const iovec* parts, int count) {
  return to_libc(name.kind == Kind::kDevice ? device_readv(fd, name, parts, count) : -EBADF);
}
ssize_t writev_ours(int fd, const Name& name, const iovec* parts, int count, std::optional<off_t> offset) {
  if (name.kind == Kind::kHandle) return to_libc(handle_writev(fd, parts, count, offset));
  if (name.kind != Kind::kDevice) return to_libc(-EBADF);
  if (offset && *offset < 0) return to_libc(-EINVAL);
  return to_libc(device_writev(fd, name, parts, count));
}
ssize_t write_ours(int fd, const Name& name, const void* bytes, size_t size, std::optional<off_t> offset) {
  if (name.kind == Kind::kHandle) return to_libc(handle_write(fd, bytes, size, offset));
  if (name.kind != Kind::kDevice) return to_libc(-EBADF);
  if (offset && *offset < 0) return to_libc(-EINVAL);
  return to_libc(device_write(fd, name, bytes, size));
}

// Data that the kernel would move by itself: the device and the objects cannot be spliced.
bool splice_ours(int in, int out, long* error) {
  Name name;
  if (identify(in, &name)) return *error = name.kind == Kind::kDevice ? -EINVAL : -EBADF, true;
  if (identify(out, &name)) return *error = -EINVAL, true;
  return false;
}

}  // namespace

HYDRANT_INTERPOSE(int, open, (const char* path, int flags, ...)) {
  if (opens_device(path, flags)) return static_cast<int>(to_libc(device_open(flags)));
  va_list arguments;
  va_start(arguments, flags);
  mode_t mode = mode_of(flags, arguments);
  va_end(arguments);
  return real_open(path, flags, mode);
}
HYDRANT_ALSO(open64, open);
HYDRANT_ALSO(__open, open);
HYDRANT_ALSO(__open64, open);

HYDRANT_INTERPOSE(int, openat, (int directory, const char* path, int flags, ...)) {
  if (opens_device(path, flags)) return static_cast<int>(to_libc(device_open(flags)));
  va_list arguments;
  va_start(arguments, flags);
  mode_t mode = mode_of(flags, arguments);
  va_end(arguments);
  return real_openat(directory, path, flags, mode);
}
HYDRANT_ALSO(openat64, openat);

HYDRANT_INTERPOSE(int, creat, (const char* path, mode_t mode)) {
  return interposed_open(path, O_CREAT | O_WRONLY | O_TRUNC, mode);
}
HYDRANT_ALSO(creat64, creat);

HYDRANT_INTERPOSE(int, __open_2, (const char* path, int flags)) {
  if (opens_device(path, flags) && !takes_mode(flags)) return static_cast<int>(to_libc(device_open(flags)));
  return real___open_2(path, flags);
}
HYDRANT_ALSO(__open64_2, __open_2);

HYDRANT_INTERPOSE(int, __openat_2, (int directory, const char* path, int flags)) {
  if (opens_device(path, flags) && !takes_mode(flags)) return static_cast<int>(to_libc(device_open(flags)));
  return real___openat_2(directory, path, flags);
}
HYDRANT_ALSO(__openat64_2, __openat_2);

HYDRANT_INTERPOSE(ssize_t, read, (int fd, void* buffer, size_t size)) {
  Name name;
  return identify(fd, &name) ? read_ours(fd, name, buffer, size) : real_read(fd, buffer, size);
}
HYDRANT_ALSO(__read, read);

HYDRANT_INTERPOSE(ssize_t, __read_chk, (int fd, void* buffer, size_t size, size_t capacity)) {
  Name name;
  if (size > capacity || !identify(fd, &name)) return real___read_chk(fd, buffer, size, capacity);
  return read_ours(fd, name, buffer, size);
}

HYDRANT_INTERPOSE(ssize_t, pread, (int fd, void* buffer, size_t size, off_t offset)) {
  Name name;
  if (!identify(fd, &name)) return real_pread(fd, buffer, size, offset);
  return offset < 0 ? to_libc(-EINVAL) : read_ours(fd, name, buffer, size);
}
HYDRANT_ALSO(pread64, pread);
HYDRANT_ALSO(__pread64, pread);

HYDRANT_INTERPOSE(ssize_t, __pread_chk, (int fd, void* buffer, size_t size, off_t offset, size_t capacity)) {
  Name name;
  if (size > capacity || !identify(fd, &name)) return real___pread_chk(fd, buffer, size, offset, capacity);
  return interposed_pread(fd, buffer, size, offset);
}
HYDRANT_ALSO(__pread64_chk, __pread_chk);

HYDRANT_INTERPOSE(ssize_t, readv, (int fd, const iovec* parts, int count)) {
  Name name;
  return identify(fd, &name) ? readv_ours(fd, name, parts, count) : real_readv(fd, parts, count);
}

HYDRANT_INTERPOSE(ssize_t, preadv, (int fd, const iovec* parts, int count, off_t offset)) {
  Name name;
  if (!identify(fd, &name)) return real_preadv(fd, parts, count, offset);
  return offset < 0 ? to_libc(-EINVAL) : readv_ours(fd, name, parts, count);
}
HYDRANT_ALSO(preadv64, preadv);

HYDRANT_INTERPOSE(ssize_t, preadv2, (int fd, const iovec* parts, int count, off_t offset, int flags)) {
  Name name;
  if (!identify(fd, &name)) return real_preadv2(fd, parts, count, offset, flags);
  if (flags) return to_libc(-EOPNOTSUPP);
  return offset < -1 ? to_libc(-EINVAL) : readv_ours(fd, name, parts, count);
}
HYDRANT_ALSO(preadv64v2, preadv2);

HYDRANT_INTERPOSE(ssize_t, write, (int fd, const void* bytes, size_t size)) {
  Name name;
  return identify(fd, &name) ? write_ours(fd, name, bytes, size, std::nullopt) : real_write(fd, bytes, size);
}
HYDRANT_ALSO(__write, write);

HYDRANT_INTERPOSE(ssize_t, pwrite, (int fd, const void* bytes, size_t size, off_t offset)) {
  Name name;
  return identify(fd, &name) ? write_ours(fd, name, bytes, size, offset) : real_pwrite(fd, bytes, size, offset);
}
HYDRANT_ALSO(pwrite64, pwrite);
HYDRANT_ALSO(__pwrite64, pwrite);

HYDRANT_INTERPOSE(ssize_t, writev, (int fd, const iovec* parts, int count)) {
  Name name;
  return identify(fd, &name) ? writev_ours(fd, name, parts, count, std::nullopt) : real_writev(fd, parts, count);
}

HYDRANT_INTERPOSE(ssize_t, pwritev, (int fd, const iovec* parts, int count, off_t offset)) {
  Name name;
  return identify(fd, &name) ? writev_ours(fd, name, parts, count, offset) : real_pwritev(fd, parts, count, offset);
}
HYDRANT_ALSO(pwritev64, pwritev);

HYDRANT_INTERPOSE(ssize_t, pwritev2, (int fd, const iovec* parts, int count, off_t offset, int flags)) {
  Name name;
  if (!identify(fd, &name)) return real_pwritev2(fd, parts, count, offset, flags);
  if (flags) return to_libc(-EOPNOTSUPP);
  return writev_ours(fd, name, parts, count, offset == -1 ? std::nullopt : std::optional(offset));
}
HYDRANT_ALSO(pwritev64v2, pwritev2);

HYDRANT_INTERPOSE(off_t, lseek, (int fd, off_t offset, int whence)) {
  Name name;
  if (!identify(fd, &name)) return real_lseek(fd, offset, whence);
  return to_libc(name.kind == Kind::kHandle ? handle_lseek(fd, offset, whence) : device_lseek(whence));
}
HYDRANT_ALSO(lseek64, lseek);
HYDRANT_ALSO(__lseek, lseek);

HYDRANT_INTERPOSE(int, ioctl, (int fd, unsigned long number, ...)) {
  va_list arguments;
  va_start(arguments, number);
  auto argument = va_arg(arguments, unsigned long);
  va_end(arguments);
  Name name;
  // What the kernel answers for any file whatever it is.
  bool general = number == FIOCLEX || number == FIONCLEX || number == FIONBIO;
  if (general || !identify(fd, &name)) return real_ioctl(fd, number, argument);
  return static_cast<int>(to_libc(name.kind == Kind::kHandle ? handle_ioctl(fd, number, argument) : -ENOTTY));
}
HYDRANT_ALSO(__ioctl, ioctl);

HYDRANT_INTERPOSE(ssize_t, sendfile, (int out, int in, off_t* offset, size_t count)) {
  long error;
  return splice_ours(in, out, &error) ? to_libc(error) : real_sendfile(out, in, offset, count);
}
HYDRANT_ALSO(sendfile64, sendfile);

HYDRANT_INTERPOSE(ssize_t, splice, (int in, off_t* in_at, int out, off_t* out_at, size_t size, unsigned flags)) {
  long error;
  return splice_ours(in, out, &error) ? to_libc(error) : real_splice(in, in_at, out, out_at, size, flags);
}

HYDRANT_INTERPOSE(ssize_t, copy_file_range,
                  (int in, off_t* in_at, int out, off_t* out_at, size_t size, unsigned flags)) {
  long error;
  return splice_ours(in, out, &error) ? to_libc(error) : real_copy_file_range(in, in_at, out, out_at, size, flags);
}

// libc writes from within here, where nothing can be interposed.
HYDRANT_INTERPOSE(int, vdprintf, (int fd, const char* format, va_list arguments)) {
  Name name;
  if (!identify(fd, &name)) return real_vdprintf(fd, format, arguments);
  char text[4096];
  int size = std::vsnprintf(text, sizeof text, format, arguments);
  if (size < 0) return size;
  return static_cast<int>(
      write_ours(fd, name, text, static_cast<size_t>(std::min<int>(size, sizeof text)), std::nullopt));
}

HYDRANT_INTERPOSE(int, dprintf, (int fd, const char* format, ...)) {
  va_list arguments;
  va_start(arguments, format);
  int result = interposed_vdprintf(fd, format, arguments);
  va_end(arguments);
  return result;
}

HYDRANT_INTERPOSE(int, __vdprintf_chk, (int fd, int flag, const char* format, va_list arguments)) {
  (void)flag;
  return interposed_vdprintf(fd, format, arguments);
}

HYDRANT_INTERPOSE(int, __dprintf_chk, (int fd, int flag, const char* format, ...)) {
  (void)flag;
  va_list arguments;
  va_start(arguments, format);
  int result = interposed_vdprintf(fd, format, arguments);
  va_end(arguments);
  return result;
}
