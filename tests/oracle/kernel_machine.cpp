#include "tests/oracle/kernel_machine.h"

#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "tests/oracle/blob.h"

namespace hydrant::oracle {
namespace {

constexpr int kWrongBytes = 200;

int64_t result(int64_t value) { return value < 0 ? -errno : value; }

// Writes to a handle are direct I/O: they come from page-aligned memory.
const void* aligned(const std::string& bytes) {
  constexpr size_t kLargest = 1 << 20;
  static void* memory = ::mmap(nullptr, kLargest, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  std::memcpy(memory, bytes.data(), std::min(bytes.size(), kLargest));
  return memory;
}

std::string mount_point(const std::string& mount) { return "/m/" + mount; }

// One readahead of the range: what the file system itself asks its cache for, without the page cache's second try.
int read_ahead(int fd, const std::string& expected, uint64_t offset) {
  size_t size = expected.size();
  ::posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
  void* map = ::mmap(nullptr, size, PROT_READ, MAP_SHARED, fd, static_cast<off_t>(offset));
  if (map == MAP_FAILED) return errno;
  ::madvise(map, size, MADV_RANDOM);
  ::posix_fadvise(fd, static_cast<off_t>(offset), static_cast<off_t>(size), POSIX_FADV_WILLNEED);
  std::vector<unsigned char> resident(size / kPage);
  if (::mincore(map, size, resident.data()) != 0) return errno;
  for (unsigned char page : resident)
    if (!(page & 1)) return EIO;
  return std::memcmp(map, expected.data(), size) == 0 ? 0 : kWrongBytes;
}

int read_page(int fd, const std::string& expected, uint64_t offset) {
  ::posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
  ::posix_fadvise(fd, 0, 0, POSIX_FADV_RANDOM);
  std::string got(expected.size(), 0);
  if (::pread(fd, got.data(), got.size(), static_cast<off_t>(offset)) < 0) return errno;
  return got == expected ? 0 : kWrongBytes;
}

}  // namespace

void settle_kernel() {
  static const int loads = ::open("/proc/loadavg", O_RDONLY | O_CLOEXEC);
  for (int calm = 0; calm < 2;) {
    char text[128] = {};
    if (::pread(loads, text, sizeof text - 1, 0) <= 0) return;
    const char* slash = std::strchr(text, '/');
    // "0.00 0.00 0.00 1/40 123": one runnable task, which is us.
    calm = slash && slash[-1] == '1' && slash[-2] == ' ' ? calm + 1 : 0;
    ::sched_yield();
  }
}

void KernelMachine::settle() { settle_kernel(); }

int KernelMachine::open(int channel) {
  int fd = ::open("/dev/cachefiles", O_RDWR | O_CLOEXEC);
  if (fd < 0) return -errno;
  if (channels_[channel] >= 0) ::close(channels_[channel]);
  channels_[channel] = fd;
  return 0;
}

void KernelMachine::close(int channel) { ::close(std::exchange(channels_[channel], -1)); }

int64_t KernelMachine::write(int channel, const std::string& text) {
  return result(::write(channels_[channel], text.data(), text.size()));
}

int64_t KernelMachine::read(int channel, size_t size, std::string* message, bool bad_address) {
  message->assign(size, 0);
  void* into = bad_address ? reinterpret_cast<void*>(8) : message->data();
  ssize_t got = ::read(channels_[channel], into, size);
  if (got < 0) return -errno;
  message->resize(static_cast<size_t>(got));
  uint32_t opcode = 1;
  int fd = -1;
  if (got >= 32) {
    std::memcpy(&opcode, message->data() + 4, 4);
    std::memcpy(&fd, message->data() + 24, 4);
  }
  if (opcode == 0) handles_.push_back(fd);
  return got;
}

unsigned KernelMachine::poll(int channel) {
  struct pollfd wanted {
    channels_[channel], POLLIN | POLLOUT, 0
  };
  ::poll(&wanted, 1, 0);
  return static_cast<unsigned short>(wanted.revents);
}

int64_t KernelMachine::handle_pwrite(size_t handle, const std::string& bytes, uint64_t offset) {
  return result(::pwrite(handles_[handle], aligned(bytes), bytes.size(), static_cast<off_t>(offset)));
}
int64_t KernelMachine::handle_write(size_t handle, const std::string& bytes) {
  return result(::write(handles_[handle], aligned(bytes), bytes.size()));
}
int64_t KernelMachine::handle_read(size_t handle) {
  char byte;
  return result(::read(handles_[handle], &byte, 1));
}
int64_t KernelMachine::handle_seek(size_t handle, int64_t offset, int whence) {
  return result(::lseek(handles_[handle], offset, whence));
}
int KernelMachine::handle_ioctl(size_t handle, unsigned number, uint64_t argument) {
  return static_cast<int>(result(::ioctl(handles_[handle], number, argument)));
}
void KernelMachine::handle_close(size_t handle) {
  if (handles_[handle] >= 0) ::close(std::exchange(handles_[handle], -1));
}
void KernelMachine::handle_dup(size_t handle) { handles_.push_back(::dup(handles_[handle])); }

void KernelMachine::refuse_descriptors(bool refuse) {
  struct rlimit limit {};
  ::getrlimit(RLIMIT_NOFILE, &limit);
  int next = refuse ? ::dup(0) : -1;
  if (next >= 0) ::close(next);
  limit.rlim_cur = refuse ? static_cast<rlim_t>(next) : limit.rlim_max;
  ::setrlimit(RLIMIT_NOFILE, &limit);
}

int KernelMachine::change_directory(const std::string& path) { return ::chdir(path.c_str()) == 0 ? 0 : -errno; }

void KernelMachine::set_free_percent(unsigned percent) {
  int fd = ::open("/c/ballast", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  ::ftruncate(fd, 0);
  struct statfs disk {};
  ::fstatfs(fd, &disk);
  auto wanted = static_cast<int64_t>(disk.f_blocks * percent / 100), free = static_cast<int64_t>(disk.f_bavail);
  if (percent < 100 && free > wanted) ::fallocate(fd, 0, 0, (free - wanted) * 4096);
  ::close(fd);
}

void KernelMachine::inject(unsigned mask) {
  int fd = ::open("/proc/sys/cachefiles/error_injection", O_WRONLY | O_CLOEXEC);
  std::string text = std::to_string(mask) + "\n";
  if (fd < 0 || ::write(fd, text.data(), text.size()) < 0) ::perror("error_injection");
  ::close(fd);
}

template <class Work>
void KernelMachine::consume(const std::string& name, Work work) {
  pid_t child = ::fork();
  if (child == 0) {
    ::close_range(3, ~0u, 0);
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    ::_exit(work());
  }
  consumers_[name] = child;
}

void KernelMachine::mount(const std::string& name, const MountOptions& options) {
  images_[name] = options.fsid;
  std::string text = "fsid=" + options.fsid;
  for (auto& device : options.devices) text += ",device=" + device;
  if (!options.domain.empty()) text += ",domain_id=" + options.domain;
  consume(name, [&] {
    ::mkdir(mount_point(name).c_str(), 0700);
    return ::mount("none", mount_point(name).c_str(), "erofs", MS_RDONLY, text.c_str()) == 0 ? 0 : errno;
  });
}

void KernelMachine::umount(const std::string& name, const std::string& mount) {
  consume(name, [&] { return ::umount2(mount_point(mount).c_str(), 0) == 0 ? 0 : errno; });
}

void KernelMachine::start_read(const std::string& name, const ReadOptions& options) {
  auto image = images_.find(options.mount);
  auto devices = image == images_.end() ? std::vector<std::string>() : devices_of(image->second);
  consume(name, [&]() -> int {
    if (image == images_.end() || options.device > devices.size()) return ENOENT;
    std::string file = options.device ? "/x" + std::to_string(options.device) : "/f";
    int fd = ::open((mount_point(options.mount) + file).c_str(), O_RDONLY);
    if (fd < 0) return errno;
    auto expected = options.device ? blob_bytes(devices[options.device - 1], options.offset, options.size)
                                   : blob_bytes(image->second, options.offset + kPage, options.size);
    return (options.by_page ? read_page : read_ahead)(fd, expected, options.offset);
  });
}

void KernelMachine::kill(const std::string& name) {
  if (auto found = consumers_.find(name); found != consumers_.end()) ::kill(found->second, SIGKILL);
}

std::optional<std::string> KernelMachine::outcome(const std::string& name) {
  int status = 0;
  auto found = consumers_.find(name);
  if (found == consumers_.end() || ::waitpid(found->second, &status, WNOHANG) == 0) return std::nullopt;
  consumers_.erase(found);
  if (WIFSIGNALED(status)) return "killed";
  int code = WEXITSTATUS(status);
  return code == kWrongBytes ? "WRONG BYTES" : errno_text(-code);
}

void KernelMachine::abandon() {
  refuse_descriptors(false);
  inject(0);
  for (int channel : {0, 1})
    if (is_open(channel)) close(channel);
  for (size_t i = 0; i < handles_.size(); ++i) handle_close(i);
  for (auto& [name, pid] : consumers_) ::kill(pid, SIGKILL);
  while (::wait(nullptr) > 0) {
  }
  for (auto& [name, image] : images_) {
    while (::umount2(mount_point(name).c_str(), MNT_DETACH) == 0) {
    }
    ::rmdir(mount_point(name).c_str());
  }
  if (::access("/c/ballast", F_OK) == 0) ::unlink("/c/ballast");
  settle_kernel();
}

}  // namespace hydrant::oracle
