// The guest's init: runs the scripts of /dev/vda, a process for each, and prints what the kernel answered.
#include <fcntl.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "tests/oracle/kernel_machine.h"
#include "tests/oracle/root.h"
#include "tests/oracle/script.h"
#include "tests/oracle/session.h"

namespace hydrant::oracle {
namespace {

constexpr const char* kRoot = "/c/root";
constexpr int kScriptSeconds = 120;

void prepare() {
  ::mkdir("/proc", 0755);
  ::mkdir("/m", 0755);
  ::mkdir("/c", 0755);
  ::mkdir("/dev", 0755);
  ::mount("proc", "/proc", "proc", 0, nullptr);
  ::mount("dev", "/dev", "devtmpfs", 0, nullptr);
  std::vector<std::filesystem::path> modules;
  for (auto& entry : std::filesystem::directory_iterator("/modules")) modules.push_back(entry.path());
  std::sort(modules.begin(), modules.end());
  for (auto& module : modules) {
    int fd = ::open(module.c_str(), O_RDONLY | O_CLOEXEC);
    const char* options = module.string().find("brd") == std::string::npos ? "" : "rd_size=65536 rd_nr=1";
    if (::syscall(SYS_finit_module, fd, options, 0) != 0)
      std::printf("! %s: %s\n", module.c_str(), std::strerror(errno));
    ::close(fd);
  }
  std::ifstream image("/disk.img", std::ios::binary);
  std::ofstream("/dev/ram0", std::ios::binary) << image.rdbuf();
  if (::mount("/dev/ram0", "/c", "ext4", 0, "user_xattr") != 0) std::perror("mount the cache's disk");
  ::unlink("/disk.img");
  struct statfs disk {};
  ::statfs("/c", &disk);
  if (disk.f_blocks != kDiskBlocks || disk.f_files != kDiskFiles)
    std::printf("! the disk has %lu blocks, %lu files\n", disk.f_blocks, disk.f_files);
}

// Its own process: whatever it leaves open ends with it.
void run(const Script& script) {
  std::printf("= %s\n", script.name.c_str());
  std::fflush(stdout);
  KernelMachine machine(kRoot);
  {
    Session session(machine);
    for (auto& step : script.steps) {
      std::string result = session.run(step);
      std::printf("%s => %s\n", step.c_str(), result.c_str());
      std::fflush(stdout);
    }
  }
  machine.abandon();
}

// False when the script hangs, and the guest with it.
bool run_and_wait(const Script& script) {
  empty_root(kRoot);
  pid_t child = ::fork();
  if (child == 0) {
    run(script);
    ::_exit(0);
  }
  sigset_t ended;
  ::sigemptyset(&ended);
  ::sigaddset(&ended, SIGCHLD);
  struct timespec limit {
    kScriptSeconds, 0
  };
  int status = 0;
  if (::sigtimedwait(&ended, nullptr, &limit) < 0 || ::waitpid(child, &status, 0) != child) return false;
  if (status != 0) std::printf("! the script's process ended with %d\n", status);
  // The slot is free once everything of this script is gone.
  for (int patience = 0; patience < 500; ++patience) {
    int fd = ::open("/dev/cachefiles", O_RDWR | O_CLOEXEC);
    if (fd >= 0) return ::close(fd), true;
    ::usleep(10'000);
  }
  return false;
}

}  // namespace
}  // namespace hydrant::oracle

int main() {
  using namespace hydrant::oracle;
  prepare();
  sigset_t children;
  ::sigemptyset(&children);
  ::sigaddset(&children, SIGCHLD);
  ::sigprocmask(SIG_BLOCK, &children, nullptr);
  std::ifstream disk("/dev/vda", std::ios::binary);
  std::string text(std::istreambuf_iterator<char>(disk), {});
  std::istringstream in(text.c_str());  // up to the padding
  for (auto& script : read_scripts(in)) {
    if (run_and_wait(script)) continue;
    std::printf("! hang\n");
    break;
  }
  std::printf("! end\n");
  std::fflush(stdout);
  ::sync();
  ::reboot(RB_POWER_OFF);
}
