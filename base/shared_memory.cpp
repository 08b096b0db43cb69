#include "base/shared_memory.h"

#include <sys/mman.h>
#include <sys/stat.h>

#include <cerrno>

namespace hydrant {

Result<SharedMemory> SharedMemory::create(const char* name, size_t size) {
  Fd fd(::memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (!fd || ::ftruncate(fd.get(), static_cast<off_t>(size)) ||
      ::fcntl(fd.get(), F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL))
    return fail_sys(errno, std::string("make the shared memory ") + name);
  return map(std::move(fd), size);
}

Result<SharedMemory> SharedMemory::open(Fd fd, size_t size) {
  struct stat status {};
  if (::fstat(fd.get(), &status)) return fail_sys(errno, "stat shared memory");
  const int seals = ::fcntl(fd.get(), F_GET_SEALS);
  if (status.st_size != static_cast<off_t>(size) || seals < 0 || !(seals & F_SEAL_SHRINK))
    return fail(Code::kCorrupt, "shared memory of another shape");
  return map(std::move(fd), size);
}

Result<SharedMemory> SharedMemory::map(Fd fd, size_t size) {
  void* at = ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd.get(), 0);
  if (at == MAP_FAILED) return fail_sys(errno, "map shared memory");
  return SharedMemory(std::move(fd), static_cast<std::byte*>(at), size);
}

SharedMemory::SharedMemory(SharedMemory&& other) noexcept
    : fd_(std::move(other.fd_)), base_(std::exchange(other.base_, nullptr)), size_(std::exchange(other.size_, 0)) {}

SharedMemory::~SharedMemory() {
  if (base_) ::munmap(base_, size_);
}

}  // namespace hydrant
