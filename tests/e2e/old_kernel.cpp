// Preloaded, makes EROFS answer as kernels before 6.12 do when their source is a regular file: ENOTBLK at the creation
// of the super block. Nothing else is touched.
#include <dlfcn.h>
#include <sys/mount.h>
#include <sys/stat.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <cstring>

namespace {

std::array<std::atomic<bool>, 65536> g_is_erofs, g_is_of_a_file;

template <class Function>
Function* next(const char* name) {
  return reinterpret_cast<Function*>(::dlsym(RTLD_NEXT, name));
}

}  // namespace

extern "C" int fsopen(const char* type, unsigned flags) noexcept {
  int fd = next<int(const char*, unsigned)>("fsopen")(type, flags);
  if (fd >= 0 && size_t(fd) < g_is_erofs.size()) g_is_erofs[size_t(fd)] = std::strcmp(type, "erofs") == 0;
  return fd;
}

extern "C" int fsconfig(int fd, unsigned command, const char* key, const void* value, int aux) noexcept {
  const bool erofs = fd >= 0 && size_t(fd) < g_is_erofs.size() && g_is_erofs[size_t(fd)];
  struct stat status {};
  if (erofs && command == FSCONFIG_SET_STRING && std::strcmp(key, "source") == 0)
    g_is_of_a_file[size_t(fd)] = ::stat(static_cast<const char*>(value), &status) == 0 && S_ISREG(status.st_mode);
  if (erofs && command == FSCONFIG_CMD_CREATE && g_is_of_a_file[size_t(fd)]) {
    errno = ENOTBLK;
    return -1;
  }
  return next<int(int, unsigned, const char*, const void*, int)>("fsconfig")(fd, command, key, value, aux);
}
