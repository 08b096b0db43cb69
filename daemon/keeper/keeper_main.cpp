// hydrant-keeper: starts hydrantd and hydrant-fetchd under one root, starts them again when they die, and holds what
// must not close meanwhile: the kernel's end of the blob file system, hydrantd's sockets, the hand-over record.
//
// Small on purpose: everything it needs is in static memory before the first child starts; from then on it only forks,
// signals, reaps, stores descriptors and sleeps. Its own death ends nothing: the children go on, a new keeper finds the
// lock free, and hydrantd finds the new keeper.
#include <fcntl.h>
#include <poll.h>
#include <sys/file.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <climits>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string_view>

#include "daemon/keeper/descriptors.h"
#include "daemon/keeper/guard.h"
#include "daemon/keeper/supervision.h"

namespace {

using namespace hydrant;
using namespace hydrant::daemon::keeper;

constexpr int kAlreadyRunning = 3;  // exit status
constexpr off_t kLogLimit = 8 << 20;
constexpr size_t kMaxArguments = 64;
constexpr size_t kMaxEnvironment = 1024;
constexpr const char* kOomScore = "/proc/self/oom_score_adj";

struct Program {
  const char* name;
  char path[PATH_MAX];  // beside our own executable, or the bare name for PATH
  char log[PATH_MAX];
  char* arguments[kMaxArguments + 1];
};

// Static, so that nothing is allocated and nothing can fail later.
Program g_hydrantd{.name = "hydrantd", .path = {}, .log = {}, .arguments = {}};
Program g_fetchd{.name = "hydrant-fetchd", .path = {}, .log = {}, .arguments = {}};
char g_pid_path[PATH_MAX];
int g_pid_file = -1;
char g_socket_path[PATH_MAX];
int g_socket = -1;  // where hydrantd's notices arrive
char g_notify[PATH_MAX + 16];
char* g_environment[kMaxEnvironment + 1];  // ours, without the words that are between a holder and what it starts
size_t g_environment_size = 0;
char g_oom_score[16] = "0\n";  // ours at the start, which the children get back
Descriptors g_descriptors;
Guard g_guard;
char g_guard_path[PATH_MAX];

[[noreturn]] void die(int status, const char* what, const char* name) {
  std::fprintf(stderr, "hydrant-keeper: %s %s: %s\n", what, name, std::strerror(errno));
  std::exit(status);
}

[[noreturn]] void usage() {
  std::fprintf(stderr,
               "usage: hydrant-keeper --root DIR [--foreground] [--hold SECONDS] [--fetchd-args ARG…]\n"
               "  --root DIR          the root that hydrantd and hydrant-fetchd serve\n"
               "  --foreground        stay attached to the terminal\n"
               "  --hold SECONDS      how long readers wait for a hydrantd that works, 1..3600 (60)\n"
               "  --fetchd-args ARG…  everything after this goes to hydrant-fetchd\n");
  std::exit(2);
}

void join(char (&out)[PATH_MAX], const char* root, const char* rest) {
  int size = std::snprintf(out, sizeof out, "%s%s", root, rest);
  if (size < 0 || size_t(size) >= sizeof out) {
    errno = ENAMETOOLONG;
    die(1, "path", root);
  }
}

void make_directory(const char* path) {
  if (::mkdir(path, 0700) && errno != EEXIST) die(1, "create", path);
}

void find_program(Program& program) {
  char self[PATH_MAX];
  ssize_t size = ::readlink("/proc/self/exe", self, sizeof self - 1);
  if (size > 0) {
    self[size] = 0;
    if (char* slash = std::strrchr(self, '/')) {
      slash[1] = 0;
      join(program.path, self, program.name);
      if (::access(program.path, X_OK) == 0) return;
    }
  }
  join(program.path, program.name, "");
}

// Gone, or nobody has waited for it yet.
bool has_ended(int pid) {
  if (pid <= 0) return false;
  char path[32], text[512] = {};
  std::snprintf(path, sizeof path, "/proc/%d/stat", pid);
  const int file = ::open(path, O_RDONLY | O_CLOEXEC);
  if (file < 0) return errno == ENOENT;
  const ssize_t size = ::read(file, text, sizeof text - 1);
  ::close(file);
  const char* name_end = size > 0 ? std::strrchr(text, ')') : nullptr;
  return !name_end || std::strncmp(name_end, ") Z", 3) == 0;
}

// The lock is the truth, the number in the file is for people. A keeper that was killed while it started a child leaves
// it the lock until the child is the program that it is to be: so who is dead is given a moment.
void take_lock(const char* root) {
  constexpr int kTries = 50, kPauseMs = 20;
  g_pid_file = ::open(g_pid_path, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
  if (g_pid_file < 0) die(1, "open", g_pid_path);
  char pid[32] = {};
  for (int left = kTries;; --left) {
    if (::flock(g_pid_file, LOCK_EX | LOCK_NB) == 0) return;
    if (errno != EWOULDBLOCK) die(1, "lock", g_pid_path);
    ssize_t size = ::pread(g_pid_file, pid, sizeof pid - 1, 0);
    pid[size > 0 ? std::strcspn(pid, "\n") : 0] = 0;
    if (!has_ended(std::atoi(pid)) || left == 0) break;
    ::poll(nullptr, 0, kPauseMs);
  }
  std::fprintf(stderr, "hydrant-keeper: a keeper (pid %s) runs %s already\n", pid, root);
  std::exit(kAlreadyRunning);
}

// A daemon that an earlier keeper started. It is no child of ours, so its end shows at its pidfd.
struct Adopted {
  Child child{};
  int pid = 0;
  int pidfd = -1;
};
Adopted g_adopted[2];
size_t g_adopted_count = 0;
bool g_was_given = false;  // hydrantd has given us something to hold

bool is_locked(int file) {
  if (::flock(file, LOCK_EX | LOCK_NB) != 0) return errno == EWOULDBLOCK;
  ::flock(file, LOCK_UN);
  return false;
}

// Whoever holds the daemon's lock, and has its number in `pid_path`, is taken for our child.
void adopt(Supervision& supervision, Child child, const char* lock_path, const char* pid_path) {
  int lock = ::open(lock_path, O_RDONLY | O_CLOEXEC), numbers = ::open(pid_path, O_RDONLY | O_CLOEXEC);
  char text[32] = {};
  if (lock >= 0 && numbers >= 0 && is_locked(lock) && ::pread(numbers, text, sizeof text - 1, 0) > 0) {
    const int pid = std::atoi(text);
    const int pidfd = pid > 1 ? int(::syscall(SYS_pidfd_open, pid, 0)) : -1;
    if (pidfd >= 0 && is_locked(lock)) {  // still: the number is its own
      g_adopted[g_adopted_count++] = {child, pid, pidfd};
      supervision.state(child).adopted(pid, std::chrono::steady_clock::now());
      // It looks for us at once, and we hold what it holds.
      if (child == Child::kHydrantd) ::syscall(SYS_pidfd_send_signal, pidfd, SIGHUP, nullptr, 0);
    } else if (pidfd >= 0) {
      ::close(pidfd);
    }
  }
  if (lock >= 0) ::close(lock);
  if (numbers >= 0) ::close(numbers);
}

void send_signal(const Signal& signal) {
  for (size_t i = 0; i < g_adopted_count; ++i)
    if (g_adopted[i].pid == signal.pid) {
      ::syscall(SYS_pidfd_send_signal, g_adopted[i].pidfd, signal.number, nullptr, 0);
      return;
    }
  ::kill(signal.pid, signal.number);  // a pid is ours until we reap it, so this never hits a stranger
}

void write_pid() {
  char text[32];
  int size = std::snprintf(text, sizeof text, "%d\n", int(::getpid()));
  if (::ftruncate(g_pid_file, 0) || ::pwrite(g_pid_file, text, size_t(size), 0) != size) die(1, "write", g_pid_path);
}

void daemonize() {
  for (int step = 0; step < 2; ++step) {
    pid_t child = ::fork();
    if (child < 0) die(1, "fork", "");
    if (child > 0) ::_exit(0);
    if (step == 0) ::setsid();
  }
  int null = ::open("/dev/null", O_RDWR | O_CLOEXEC);
  for (int fd = 0; fd <= 2; ++fd) ::dup2(null, fd);
  if (null > 2) ::close(null);
  if (::chdir("/")) die(1, "chdir", "/");
}

// Whoever kills for memory takes us last: we have next to none, and everything hangs on us.
void lower_oom_score() {
  int file = ::open(kOomScore, O_RDWR | O_CLOEXEC);
  if (file < 0) return;
  ssize_t size = ::read(file, g_oom_score, sizeof g_oom_score - 1);
  g_oom_score[size > 0 ? size : 0] = 0;
  if (::pwrite(file, "-1000", 5, 0) < 0) g_oom_score[0] = 0;  // not allowed here: nothing to restore either
  ::close(file);
}

void restore_oom_score() {
  if (!g_oom_score[0]) return;
  int file = ::open(kOomScore, O_WRONLY | O_CLOEXEC);
  if (file < 0) return;
  if (::write(file, g_oom_score, std::strlen(g_oom_score)) < 0) ::dprintf(2, "hydrant-keeper: oom_score_adj stays\n");
  ::close(file);
}

void copy_environment() {
  constexpr std::string_view kNotOurs[] = {"LISTEN_PID=", "LISTEN_FDS=", "LISTEN_FDNAMES=", "NOTIFY_SOCKET="};
  for (char** at = environ; *at && g_environment_size < kMaxEnvironment - 4; ++at) {
    bool ours = true;
    for (std::string_view word : kNotOurs) ours = ours && std::string_view(*at).substr(0, word.size()) != word;
    if (ours) g_environment[g_environment_size++] = *at;
  }
}

void open_socket() {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (std::strlen(g_socket_path) >= sizeof address.sun_path) {
    errno = ENAMETOOLONG;
    die(1, "socket", g_socket_path);
  }
  std::strcpy(address.sun_path, g_socket_path);
  g_socket = ::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  ::unlink(g_socket_path);  // of a dead keeper: we have the lock
  if (g_socket < 0 || ::fchmod(g_socket, 0600) ||
      ::bind(g_socket, reinterpret_cast<const sockaddr*>(&address), sizeof address))
    die(1, "bind", g_socket_path);
}

// For hydrantd only, in the child: sd_listen_fds(3) and sd_notify(3).
void hand_down() {
  static char names[kMaxDescriptors * (kMaxName + 1) + 1];
  static char list[sizeof names + 16], count[32], pid[32];
  std::snprintf(list, sizeof list, "LISTEN_FDNAMES=%s", g_descriptors.hand_down(names));
  std::snprintf(count, sizeof count, "LISTEN_FDS=%zu", g_descriptors.count());
  std::snprintf(pid, sizeof pid, "LISTEN_PID=%d", int(::getpid()));
  for (char* word : {g_notify, list, count, pid}) g_environment[g_environment_size++] = word;
}

// In the child. No allocation.
[[noreturn]] void become(const Program& program) {
  ::setpgid(0, 0);  // a terminal's interrupt is for the keeper, which stops the children in order
  sigset_t none;
  sigemptyset(&none);
  ::sigprocmask(SIG_SETMASK, &none, nullptr);
  int log = ::open(program.log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
  struct stat status {};
  if (log >= 0 && ::fstat(log, &status) == 0 && status.st_size > kLogLimit && ::ftruncate(log, 0)) ::_exit(126);
  int null = ::open("/dev/null", O_RDONLY | O_CLOEXEC);
  ::dup2(null, 0);
  if (log >= 0) {
    ::dup2(log, 1);
    ::dup2(log, 2);
  }
  restore_oom_score();
  if (&program == &g_hydrantd) hand_down();
  ::execvpe(program.path, program.arguments, g_environment);
  ::dprintf(2, "hydrant-keeper: cannot run %s: %s\n", program.path, ::strerrordesc_np(errno));
  ::_exit(127);
}

const Program& program_of(Child child) { return child == Child::kHydrantd ? g_hydrantd : g_fetchd; }

void start(Supervision& supervision, Child child) {
  pid_t pid = ::fork();
  if (pid == 0) become(program_of(child));
  auto now = std::chrono::steady_clock::now();
  if (pid > 0)
    supervision.state(child).started(pid, now);
  else
    supervision.state(child).ended(now);
  // One that denies goes on until somebody takes over what it guards.
  if (pid > 0 && child == Child::kHydrantd && !g_guard.denies()) g_guard.renew(g_descriptors, pid);
}

void hear(Supervision& supervision, Hold& hold) {
  for (;;) {
    static char text[1024];
    alignas(cmsghdr) static char control[CMSG_SPACE(sizeof(int) * 4)];
    iovec part{text, sizeof text};
    msghdr message{};
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    message.msg_control = control;
    message.msg_controllen = sizeof control;
    ssize_t size = ::recvmsg(g_socket, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    if (size < 0 && errno == EINTR) continue;
    if (size < 0) return;
    Notice notice = parse_notice({text, size_t(size)});
    bool stored = false;
    for (cmsghdr* at = CMSG_FIRSTHDR(&message); at; at = CMSG_NXTHDR(&message, at)) {
      if (at->cmsg_level != SOL_SOCKET || at->cmsg_type != SCM_RIGHTS) continue;
      for (size_t i = 0; i < (at->cmsg_len - CMSG_LEN(0)) / sizeof(int); ++i) {
        int fd;
        std::memcpy(&fd, CMSG_DATA(at) + i * sizeof fd, sizeof fd);
        if (notice.kind == Notice::Kind::kStore && !stored) {
          g_descriptors.store(notice.name, fd);
          g_was_given = true;
          if (notice.name.starts_with(kGuardedPrefix))
            g_guard.renew(g_descriptors, supervision.state(Child::kHydrantd).pid());
        } else {
          ::close(fd);
        }
        stored = true;
      }
    }
    if (notice.kind == Notice::Kind::kRemove) {
      g_descriptors.remove(notice.name);
      if (notice.name == kGuarded) g_guard.end();
    }
    if (notice.kind == Notice::Kind::kReady && supervision.state(Child::kHydrantd).running()) {
      supervision.state(Child::kHydrantd).ready();
      hold.ready();
    }
  }
}

// Nobody came to serve what we hold: its readers are told. Those of marked files by the guard, for they would read
// zeros if we just let go.
void let_go(Supervision& supervision, Hold& hold) {
  g_guard.deny();
  g_descriptors.clear(kGuardedPrefix);
  hold.ready();
  auto& hydrantd = supervision.state(Child::kHydrantd);
  if (hydrantd.running()) send_signal({hydrantd.pid(), SIGKILL});  // it holds them too, and has not become ready
}

void reap(Supervision& supervision, Hold& hold) {
  int status;
  for (pid_t pid; (pid = ::waitpid(-1, &status, WNOHANG)) > 0;) {
    if (pid == g_guard.pid()) g_guard.renew(g_descriptors, supervision.state(Child::kHydrantd).pid());
    if (pid == supervision.state(Child::kHydrantd).pid()) {
      // In use: one that is no child of ours serves, started by the keeper before us.
      if (WIFEXITED(status) && WEXITSTATUS(status) == kRootInUse)
        hold.ready();
      else if (g_descriptors.count())
        hold.lost(std::chrono::steady_clock::now());
    }
    supervision.ended(pid, WIFEXITED(status) ? std::optional(WEXITSTATUS(status)) : std::nullopt,
                      std::chrono::steady_clock::now());
  }
}

// The number is nobody's as long as we have the pidfd, so it cannot be mixed up with a child's.
void see_off(Supervision& supervision, Hold& hold) {
  for (size_t i = 0; i < g_adopted_count;) {
    pollfd end{g_adopted[i].pidfd, POLLIN, 0};
    if (::poll(&end, 1, 0) != 1) {
      ++i;
      continue;
    }
    const Adopted gone = g_adopted[i];
    g_adopted[i] = g_adopted[--g_adopted_count];
    const auto now = std::chrono::steady_clock::now();
    if (gone.child == Child::kHydrantd && g_descriptors.count()) hold.lost(now);
    // One that ends by an order takes back what we hold, and only then: its status is its parent's to know.
    const bool ordered = gone.child == Child::kHydrantd && g_was_given && g_descriptors.count(kGuardedPrefix) == 0;
    supervision.ended(gone.pid, ordered ? std::optional(0) : std::nullopt, now);
    ::close(gone.pidfd);
  }
}

// Returns the exit status: 0 after an ordered stop, else that of the child that could not be started.
int supervise(const char* run, Hold hold) {
  sigset_t signals;
  sigemptyset(&signals);
  for (int number : {SIGTERM, SIGINT, SIGCHLD}) sigaddset(&signals, number);
  ::sigprocmask(SIG_BLOCK, &signals, nullptr);
  int signal_fd = ::signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK);
  if (signal_fd < 0) die(1, "signalfd", "");
  Supervision supervision(std::chrono::steady_clock::now());
  static char hydrantd_lock[PATH_MAX], fetchd_lock[PATH_MAX], fetchd_pid[PATH_MAX];
  join(hydrantd_lock, run, "/hydrantd.lock");
  join(fetchd_lock, run, "/fetchd.lock");
  join(fetchd_pid, run, "/fetchd.pid");
  g_guard.inherit(g_descriptors);
  adopt(supervision, Child::kHydrantd, hydrantd_lock, hydrantd_lock);
  adopt(supervision, Child::kFetchd, fetchd_lock, fetchd_pid);
  for (;;) {
    auto now = std::chrono::steady_clock::now();
    while (auto child = supervision.due(now)) start(supervision, *child);
    while (auto signal = supervision.signal_due(now)) send_signal(*signal);
    if (supervision.phase() == Phase::kDone) {
      ::unlink(g_socket_path);  // under our lock still
      return supervision.refusal() ? supervision.refusal()->status : 0;
    }
    Instant next = std::min(supervision.next_event().value_or(Instant::max()), hold.until());
    int wait_ms = -1;
    if (next != Instant::max()) {
      auto left = std::max(next - std::chrono::steady_clock::now(), Duration(0));
      wait_ms = int(std::chrono::ceil<std::chrono::milliseconds>(left).count());
    }
    pollfd sources[4] = {{signal_fd, POLLIN, 0}, {g_socket, POLLIN, 0}};
    for (size_t i = 0; i < g_adopted_count; ++i) sources[2 + i] = {g_adopted[i].pidfd, POLLIN, 0};
    ::poll(sources, 2 + g_adopted_count, wait_ms);
    signalfd_siginfo got;
    while (::read(signal_fd, &got, sizeof got) == sizeof got)
      if (got.ssi_signo == SIGTERM || got.ssi_signo == SIGINT) supervision.stop(std::chrono::steady_clock::now());
    hear(supervision, hold);  // before the reaping: what a dead hydrantd has sent still counts
    reap(supervision, hold);
    see_off(supervision, hold);
    if (hold.over(std::chrono::steady_clock::now())) let_go(supervision, hold);
  }
}

}  // namespace

int main(int argc, char** argv) {
  const char* root = nullptr;
  bool foreground = false;
  Duration hold = kHoldLimit;
  int fetchd_arguments = argc;
  for (int i = 1; i < argc; ++i) {
    if (!std::strcmp(argv[i], "--root") && i + 1 < argc) {
      root = argv[++i];
    } else if (!std::strncmp(argv[i], "--root=", 7)) {
      root = argv[i] + 7;
    } else if (!std::strcmp(argv[i], "--foreground")) {
      foreground = true;
    } else if (!std::strcmp(argv[i], "--hold") && i + 1 < argc) {
      const auto limit = parse_hold(argv[++i]);
      if (!limit) usage();
      hold = *limit;
    } else if (!std::strcmp(argv[i], "--fetchd-args")) {
      fetchd_arguments = i + 1;
      break;
    } else {
      usage();
    }
  }
  if (!root || !*root || argc - fetchd_arguments > int(kMaxArguments) - 3) usage();

  static char real_root[PATH_MAX];
  static char run[PATH_MAX];
  static char root_option[] = "--root";
  make_directory(root);
  if (!::realpath(root, real_root)) die(1, "resolve", root);
  join(run, real_root, "/run");
  make_directory(run);
  join(g_pid_path, run, "/keeper.pid");
  join(g_socket_path, run, "/keeper.sock");
  join(g_guard_path, run, "/guard.sock");
  g_guard.prepare(g_guard_path, argv[0]);
  std::snprintf(g_notify, sizeof g_notify, "NOTIFY_SOCKET=%s", g_socket_path);
  join(g_hydrantd.log, run, "/hydrantd.log");
  join(g_fetchd.log, run, "/fetchd.log");
  for (Program* program : {&g_hydrantd, &g_fetchd}) {
    find_program(*program);
    program->arguments[0] = program->path;
    program->arguments[1] = root_option;
    program->arguments[2] = real_root;
  }
  for (int i = fetchd_arguments; i < argc; ++i) g_fetchd.arguments[3 + i - fetchd_arguments] = argv[i];

  take_lock(real_root);
  open_socket();  // whoever started us finds it there
  if (!foreground) daemonize();
  write_pid();
  lower_oom_score();
  copy_environment();
  int status = supervise(run, Hold(hold));
  // The file stays: unlinking it could leave two holders of two locks.
  return ::ftruncate(g_pid_file, 0) && status == 0 ? 1 : status;
}
