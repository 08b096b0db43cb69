// close, dup, fcntl, stat, and descriptors that come by message.
#include <fcntl.h>
#include <linux/close_range.h>
#include <sched.h>
#include <sys/pidfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include <cstdarg>
#include <cstring>

#include "shim/closing.h"
#include "shim/device.h"
#include "shim/identity.h"
#include "shim/interpose.h"
#include "shim/real.h"
#include "shim/sys.h"

namespace {

using namespace hydrant::shim;

HYDRANT_REAL(close);
HYDRANT_REAL(close_range);
HYDRANT_REAL(dup);
HYDRANT_REAL(dup2);
HYDRANT_REAL(dup3);
HYDRANT_REAL(fcntl);
HYDRANT_REAL(fstat);
HYDRANT_REAL(stat);
HYDRANT_REAL(lstat);
HYDRANT_REAL(fstatat);
HYDRANT_REAL(statx);
HYDRANT_REAL(access);
HYDRANT_REAL(faccessat);
HYDRANT_REAL(recvmsg);
HYDRANT_REAL(recvmmsg);
HYDRANT_REAL(pidfd_getfd);

constexpr int kLargeFile = 0100000;  // O_LARGEFILE, which is 0 to 64-bit programs and set for them by the kernel
constexpr unsigned kMiscMajor = 10;  // of the kernel's device; its minor is whatever was free
constexpr unsigned kMinor = 122;

void describe_device(struct stat* out) {
  *out = {};
  out->st_mode = S_IFCHR | 0600;
  out->st_nlink = 1;
  out->st_rdev = makedev(kMiscMajor, kMinor);
  out->st_blksize = 4096;
}

// Of the descriptor as the kernel's are: a character device, or a file without a type.
bool describe(int fd, struct stat* out) {
  Name name;
  if (!identify(fd, &name)) return false;
  describe_device(out);
  if (name.kind == Kind::kHandle) out->st_mode = 0600, out->st_rdev = 0;
  return true;
}

void note_passed(const msghdr* message) {
  for (cmsghdr* at = CMSG_FIRSTHDR(message); at; at = CMSG_NXTHDR(const_cast<msghdr*>(message), at)) {
    if (at->cmsg_level != SOL_SOCKET || at->cmsg_type != SCM_RIGHTS) continue;
    for (size_t i = 0; i < (at->cmsg_len - CMSG_LEN(0)) / sizeof(int); ++i) {
      int fd;
      std::memcpy(&fd, CMSG_DATA(at) + i * sizeof fd, sizeof fd);
      fresh(fd);
    }
  }
}

// A socket's are always those of reading and writing.
int own_flags(const Name& name, int flags) {
  if (flags < 0) return flags;
  flags &= ~O_ACCMODE;
  return name.kind == Kind::kDevice ? flags | name.access | kLargeFile : flags | O_WRONLY;
}

}  // namespace

HYDRANT_INTERPOSE(int, close, (int fd)) {
  if (is_hidden(fd)) return static_cast<int>(to_libc(-EBADF));
  Closing closing(fd);
  return real_close(fd);
}
HYDRANT_ALSO(__close, close);

HYDRANT_INTERPOSE(int, close_range, (unsigned first, unsigned last, int flags)) {
  if (first > last || (flags & ~(CLOSE_RANGE_UNSHARE | CLOSE_RANGE_CLOEXEC)))
    return real_close_range(first, last, flags);
  if ((flags & CLOSE_RANGE_UNSHARE) && ::unshare(CLONE_FILES)) return -1;
  flags &= ~CLOSE_RANGE_UNSHARE;
  unsigned begin = first;
  for (unsigned fd = first; fd <= last && fd < static_cast<unsigned>(sweep_end()); ++fd) {
    auto number = static_cast<int>(fd);
    if (is_hidden(number)) {
      if (fd > begin && real_close_range(begin, fd - 1, flags)) return -1;
      begin = fd + 1;
    } else if (!(flags & CLOSE_RANGE_CLOEXEC)) {
      Name name;
      if (identify(number, &name)) interposed_close(number);
    }
  }
  return begin <= last ? real_close_range(begin, last, flags) : 0;
}

HYDRANT_INTERPOSE(void, closefrom, (int first)) { interposed_close_range(first < 0 ? 0 : unsigned(first), ~0u, 0); }

HYDRANT_INTERPOSE(int, dup, (int fd)) {
  int result = real_dup(fd);
  copied(fd, result);
  return result;
}

HYDRANT_INTERPOSE(int, dup2, (int fd, int copy)) {
  if (fd == copy) return real_dup2(fd, copy);
  Closing closing(copy);
  int result = real_dup2(fd, copy);
  copied(fd, result);
  return result;
}
HYDRANT_ALSO(__dup2, dup2);

HYDRANT_INTERPOSE(int, dup3, (int fd, int copy, int flags)) {
  Closing closing(fd == copy ? -1 : copy);
  int result = real_dup3(fd, copy, flags);
  copied(fd, result);
  return result;
}

HYDRANT_INTERPOSE(int, fcntl, (int fd, int command, ...)) {
  va_list arguments;
  va_start(arguments, command);
  void* argument = va_arg(arguments, void*);
  va_end(arguments);
  Name name;
  switch (command) {
    case F_DUPFD:
    case F_DUPFD_CLOEXEC: {
      int result = real_fcntl(fd, command, argument);
      copied(fd, result);
      return result;
    }
    case F_GETFL: return identify(fd, &name) ? own_flags(name, real_fcntl(fd, command)) : real_fcntl(fd, command);
    case F_SETFL:
      // A socket refuses some flags that mean nothing here, and would act on others.
      if (identify(fd, &name))
        return real_fcntl(fd, command, static_cast<int>(reinterpret_cast<long>(argument)) & (O_NONBLOCK | O_APPEND));
      [[fallthrough]];
    default: return real_fcntl(fd, command, argument);
  }
}
HYDRANT_ALSO(fcntl64, fcntl);
HYDRANT_ALSO(__fcntl, fcntl);

HYDRANT_INTERPOSE(int, fstat, (int fd, struct stat* out)) { return describe(fd, out) ? 0 : real_fstat(fd, out); }
HYDRANT_ALSO(fstat64, fstat);

HYDRANT_INTERPOSE(int, stat, (const char* path, struct stat* out)) {
  if (!is_device_path(path)) return real_stat(path, out);
  return describe_device(out), 0;
}
HYDRANT_ALSO(stat64, stat);

HYDRANT_INTERPOSE(int, lstat, (const char* path, struct stat* out)) {
  if (!is_device_path(path)) return real_lstat(path, out);
  return describe_device(out), 0;
}
HYDRANT_ALSO(lstat64, lstat);

HYDRANT_INTERPOSE(int, fstatat, (int directory, const char* path, struct stat* out, int flags)) {
  if (is_device_path(path)) return describe_device(out), 0;
  if ((flags & AT_EMPTY_PATH) && path && !path[0] && describe(directory, out)) return 0;
  return real_fstatat(directory, path, out, flags);
}
HYDRANT_ALSO(fstatat64, fstatat);

HYDRANT_INTERPOSE(int, statx, (int directory, const char* path, int flags, unsigned mask, struct statx* out)) {
  struct stat status;
  bool ours = is_device_path(path);
  if (ours) describe_device(&status);
  if (!ours && (flags & AT_EMPTY_PATH) && path && !path[0]) ours = describe(directory, &status);
  if (!ours) return real_statx(directory, path, flags, mask, out);
  *out = {};
  out->stx_mask = STATX_TYPE | STATX_MODE | STATX_NLINK | STATX_UID | STATX_GID | STATX_SIZE;
  out->stx_mode = static_cast<uint16_t>(status.st_mode);
  out->stx_nlink = 1;
  out->stx_blksize = 4096;
  out->stx_rdev_major = major(status.st_rdev);
  out->stx_rdev_minor = minor(status.st_rdev);
  return 0;
}

HYDRANT_INTERPOSE(int, access, (const char* path, int mode)) {
  if (!is_device_path(path)) return real_access(path, mode);
  return static_cast<int>(to_libc(mode & X_OK ? -EACCES : 0));
}

HYDRANT_INTERPOSE(int, faccessat, (int directory, const char* path, int mode, int flags)) {
  if (!is_device_path(path)) return real_faccessat(directory, path, mode, flags);
  return static_cast<int>(to_libc(mode & X_OK ? -EACCES : 0));
}

HYDRANT_INTERPOSE(ssize_t, recvmsg, (int fd, msghdr* message, int flags)) {
  ssize_t result = real_recvmsg(fd, message, flags);
  if (result >= 0 && message->msg_control) note_passed(message);
  return result;
}

HYDRANT_INTERPOSE(int, recvmmsg, (int fd, mmsghdr* messages, unsigned count, int flags, timespec* timeout)) {
  int result = real_recvmmsg(fd, messages, count, flags, timeout);
  for (int i = 0; i < result; ++i)
    if (messages[i].msg_hdr.msg_control) note_passed(&messages[i].msg_hdr);
  return result;
}

HYDRANT_INTERPOSE(int, pidfd_getfd, (int process, int fd, unsigned flags)) {
  int result = real_pidfd_getfd(process, fd, flags);
  fresh(result);
  return result;
}
