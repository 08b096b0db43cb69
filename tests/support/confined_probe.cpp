// confined_probe ROOT FOREIGN_DIR BACKING_FILE PID [PART…]: gives up what hydrant-fetchd gives up over that root (less
// the PARTs), then tries what an attacker inside it would, and what the daemon needs. Prints one JSON object: attempt →
// errno, 0 where it went through.
#include <fcntl.h>
#include <linux/bpf.h>
#include <linux/perf_event.h>
#include <sched.h>
#include <spawn.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <nlohmann/json.hpp>
#include <thread>

#include "base/log.h"
#include "fetch/confinement.h"

extern char** environ;

namespace {

using namespace hydrant;

nlohmann::json g_outcome = nlohmann::json::object();

// `result`: of a system call.
void tried(const char* what, long result) { g_outcome[what] = result < 0 ? errno : 0; }

int try_open(const std::string& path, int flags) {
  const int fd = ::open(path.c_str(), flags | O_CLOEXEC, 0600);
  if (fd >= 0) ::close(fd);
  return fd;
}

void try_files(const std::string& root, const std::string& foreign, const std::string& backing) {
  const std::string state = root + "/fetch";
  tried("write-own-state", try_open(state + "/probe", O_RDWR | O_CREAT));
  tried("make-own-directory", ::mkdir((state + "/probe.d").c_str(), 0700));
  tried("read-passwd", try_open("/etc/passwd", O_RDONLY));
  tried("write-null", try_open("/dev/null", O_WRONLY));
  tried("write-etc", try_open("/etc/hydrant-probe", O_RDWR | O_CREAT));
  tried("write-foreign", try_open(foreign + "/probe", O_RDWR | O_CREAT));
  tried("write-foreign-unnamed", try_open(foreign, O_RDWR | O_TMPFILE));
  tried("truncate-foreign", try_open(foreign + "/file", O_WRONLY | O_TRUNC));
  tried("rename-into-foreign", ::rename((state + "/probe").c_str(), (foreign + "/probe").c_str()));
  tried("remove-foreign", ::unlink((foreign + "/file").c_str()));
  tried("chmod-foreign", ::chmod((foreign + "/file").c_str(), 0777));
  tried("write-backing-file", try_open(backing, O_RDWR));
  tried("remove-backing-file", ::unlink(backing.c_str()));
  tried("write-run", try_open(root + "/run/probe", O_RDWR | O_CREAT));
  tried("write-mount-records", try_open(root + "/mounts/probe", O_RDWR | O_CREAT));
  tried("write-trust", try_open(root + "/trust/probe.pem", O_RDWR | O_CREAT));
  tried("hard-link", ::link((foreign + "/file").c_str(), (state + "/linked").c_str()));
  tried("symbolic-link", ::symlink("/etc", (state + "/symbolic").c_str()));
  tried("make-device", ::mknod((state + "/device").c_str(), S_IFCHR | 0600, 0));
  tried("give-away", ::chown((state + "/probe").c_str(), 0, 0));
  tried("write-memory-of-others", try_open("/proc/1/mem", O_RDWR));
}

void try_kernel(pid_t victim) {
  tried("become-root", ::setuid(0));
  tried("mount", ::mount("none", "/mnt", "tmpfs", 0, nullptr));
  tried("umount", ::umount2("/proc", MNT_DETACH));
  tried("fsopen", ::syscall(SYS_fsopen, "tmpfs", 0));
  tried("chroot", ::chroot("/"));
  tried("pivot-root", ::syscall(SYS_pivot_root, "/", "/"));
  tried("ptrace", ::ptrace(PTRACE_ATTACH, victim, nullptr, nullptr));
  char byte = 0;
  iovec here{&byte, 1}, there{&byte, 1};
  tried("read-memory-of-others", ::process_vm_readv(victim, &here, 1, &there, 1, 0));
  tried("signal-others", ::kill(victim, SIGCONT));
  bpf_attr bpf{};
  bpf.map_type = BPF_MAP_TYPE_ARRAY, bpf.key_size = bpf.value_size = 4, bpf.max_entries = 1;
  tried("bpf", ::syscall(SYS_bpf, BPF_MAP_CREATE, &bpf, sizeof bpf));
  perf_event_attr perf{};
  perf.size = sizeof perf;
  tried("perf", ::syscall(SYS_perf_event_open, &perf, 0, -1, -1, 0));
  tried("module", ::syscall(SYS_init_module, nullptr, 0, ""));
  tried("keys", ::syscall(SYS_add_key, "user", "hydrant", "x", 1, -3));
  tried("io-uring", ::syscall(SYS_io_uring_setup, 1, nullptr));
  tried("userfaultfd", ::syscall(SYS_userfaultfd, 1));
  tried("fanotify", ::syscall(SYS_fanotify_init, 0, 0));
  tried("open-by-handle", ::syscall(SYS_open_by_handle_at, AT_FDCWD, nullptr, 0));
  tried("user-namespace", ::unshare(CLONE_NEWUSER));
  tried("mount-namespace", ::unshare(CLONE_NEWNS));
  tried("namespace-by-clone", ::syscall(SYS_clone, CLONE_NEWUSER | SIGCHLD, nullptr, nullptr, nullptr, nullptr));
  tried("raw-packets", ::socket(AF_PACKET, SOCK_RAW, 0));
  tried("kernel-crypto", ::socket(AF_ALG, SOCK_SEQPACKET, 0));
  tried("swap", ::syscall(SYS_swapoff, "/none"));
  tried("clock", ::syscall(SYS_settimeofday, nullptr, nullptr));
  tried("host-name", ::sethostname("x", 1));
}

// What the daemon, and a helper for credentials, cannot do without.
void try_needs() {
  tried("tcp", ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  int pair[2];
  tried("socket-pair", ::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair));
  tried("memory-file", ::memfd_create("probe", MFD_CLOEXEC));
  int from_thread = -1;
  std::thread([&] { from_thread = 0; }).join();
  tried("thread", from_thread);
  char name[] = "/bin/sh", c[] = "-c", script[] = "test \"$(ls / | wc -l)\" -gt 2";
  char* words[] = {name, c, script, nullptr};
  pid_t pid = -1;
  int status = -1;
  errno = ::posix_spawn(&pid, name, nullptr, nullptr, words, environ);
  if (errno == 0 && (::waitpid(pid, &status, 0) != pid || status != 0)) errno = ECHILD;
  tried("helper", errno ? -1 : 0);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 5) return 2;
  const fetch::Paths paths{argv[1]};
  auto confined =
      fetch::confine(paths, {.user = {}, .unconfined = {argv + 5, argv + argc}, .device = {}, .cache_dir = {}});
  if (!confined) {
    std::fprintf(stderr, "confined_probe: %s\n", confined.error().what.c_str());
    return 1;
  }
  try_needs();
  try_files(argv[1], argv[2], argv[3]);
  try_kernel(std::atoi(argv[4]));
  g_outcome["landlock-version"] = confined->landlock;
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);)
    if (auto colon = line.find(":\t"); colon != line.npos)
      g_outcome["status"][line.substr(0, colon)] = line.substr(colon + 2);
  std::printf("%s\n", g_outcome.dump().c_str());
  return 0;
}
