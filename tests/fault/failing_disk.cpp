// Preloaded, makes what writes to a regular file or changes a directory fail now and then, as a bad, full or limited
// disk does. HYDRANT_FAILING_DISK names a file of two numbers of 4 bytes that all share: one of how many calls fails
// (0: none), and with which errno; a third one counts the failures.
#undef _FILE_OFFSET_BITS  // both names of a call are wanted
#include <dlfcn.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdarg>
#include <cstdint>
#include <cstdlib>

namespace {

struct Control {
  std::atomic<uint32_t> one_in, error, failures;
};

// Before main, so also before a daemon confines itself.
Control* const g_control = [] {
  static Control none{};
  const char* path = ::getenv("HYDRANT_FAILING_DISK");
  const int fd = path ? ::open(path, O_RDWR | O_CLOEXEC) : -1;
  if (fd < 0) return &none;
  void* at = ::mmap(nullptr, sizeof(Control), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  ::close(fd);
  return at == MAP_FAILED ? &none : static_cast<Control*>(at);
}();

bool fails() {
  static std::atomic<uint64_t> calls{static_cast<uint64_t>(::getpid()) << 20};
  const uint32_t one_in = g_control->one_in.load();
  if (one_in == 0) return false;
  // Spread evenly, and the same in each run of a process that makes the same calls.
  const uint64_t mixed = (calls.fetch_add(1) + 1) * 0x9e3779b97f4a7c15;
  if (((mixed ^ mixed >> 29) >> 32) % one_in != 0) return false;
  g_control->failures.fetch_add(1);
  errno = static_cast<int>(g_control->error.load());
  return true;
}

bool fails(int fd) {
  struct stat status;
  const int saved = errno;
  const bool file = ::fstat(fd, &status) == 0 && S_ISREG(status.st_mode);
  errno = saved;
  return file && fails();
}

template <class Function>
Function* next(const char* name) {
  return reinterpret_cast<Function*>(::dlsym(RTLD_NEXT, name));
}

}  // namespace

// The name, its parameters, its arguments, and what it is about: a descriptor, or nothing.
#define WRAP(result, name, parameters, arguments, ...)        \
  extern "C" result name parameters {                         \
    if (fails(__VA_ARGS__)) return -1;                        \
    static auto* const real = next<result parameters>(#name); \
    return real arguments;                                    \
  }

WRAP(ssize_t, write, (int fd, const void* from, size_t size), (fd, from, size), fd)
WRAP(ssize_t, writev, (int fd, const iovec* parts, int count), (fd, parts, count), fd)
WRAP(ssize_t, pwrite, (int fd, const void* from, size_t size, off_t at), (fd, from, size, at), fd)
WRAP(ssize_t, pwrite64, (int fd, const void* from, size_t size, off64_t at), (fd, from, size, at), fd)
WRAP(ssize_t, pwritev, (int fd, const iovec* parts, int count, off_t at), (fd, parts, count, at), fd)
WRAP(ssize_t, pwritev64, (int fd, const iovec* parts, int count, off64_t at), (fd, parts, count, at), fd)
WRAP(int, fsync, (int fd), (fd), fd)
WRAP(int, fdatasync, (int fd), (fd), fd)
WRAP(int, ftruncate, (int fd, off_t size) noexcept, (fd, size), fd)
WRAP(int, ftruncate64, (int fd, off64_t size) noexcept, (fd, size), fd)
WRAP(int, fallocate, (int fd, int mode, off_t at, off_t size), (fd, mode, at, size), fd)
WRAP(int, fallocate64, (int fd, int mode, off64_t at, off64_t size), (fd, mode, at, size), fd)
WRAP(int, fsetxattr, (int fd, const char* name, const void* value, size_t size, int flags) noexcept,
     (fd, name, value, size, flags), fd)
WRAP(int, rename, (const char* from, const char* to) noexcept, (from, to))
WRAP(int, mkdir, (const char* path, mode_t mode) noexcept, (path, mode))
WRAP(int, mkdirat, (int at, const char* path, mode_t mode) noexcept, (at, path, mode))
WRAP(int, mkostemp64, (char* path, int flags), (path, flags))
WRAP(int, linkat, (int from, const char* name, int to, const char* path, int flags) noexcept,
     (from, name, to, path, flags))

#define WRAP_OPEN(name, parameters, arguments)                                \
  extern "C" int name parameters {                                            \
    va_list rest;                                                             \
    va_start(rest, flags);                                                    \
    const bool makes = (flags & O_CREAT) || (flags & O_TMPFILE) == O_TMPFILE; \
    const mode_t mode = makes ? va_arg(rest, mode_t) : 0;                     \
    va_end(rest);                                                             \
    if (makes && fails()) return -1;                                          \
    static auto* const real = next<int parameters>(#name);                    \
    return real arguments;                                                    \
  }

WRAP_OPEN(open64, (const char* path, int flags, ...), (path, flags, mode))
WRAP_OPEN(openat64, (int at, const char* path, int flags, ...), (at, path, flags, mode))
