// hydrant-keeper: starts hydrantd and hydrant-fetchd under one root and starts them again when they die.
//
// Small on purpose: everything it needs is in static memory before the first child starts; from then on it only forks,
// signals, reaps and sleeps. Its own death ends nothing: the children go on, and a new keeper finds the lock free.
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <climits>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "daemon/keeper/supervision.h"

namespace {

using namespace hydrant;
using namespace hydrant::daemon::keeper;

constexpr int kAlreadyRunning = 3;  // exit status
constexpr off_t kLogLimit = 8 << 20;
constexpr size_t kMaxArguments = 64;

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

[[noreturn]] void die(int status, const char* what, const char* name) {
  std::fprintf(stderr, "hydrant-keeper: %s %s: %s\n", what, name, std::strerror(errno));
  std::exit(status);
}

[[noreturn]] void usage() {
  std::fprintf(stderr,
               "usage: hydrant-keeper --root DIR [--foreground] [--fetchd-args ARG…]\n"
               "  --root DIR          the root that hydrantd and hydrant-fetchd serve\n"
               "  --foreground        stay attached to the terminal\n"
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

// The lock is the truth, the number in the file is for people.
void take_lock(const char* root) {
  g_pid_file = ::open(g_pid_path, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
  if (g_pid_file < 0) die(1, "open", g_pid_path);
  if (::flock(g_pid_file, LOCK_EX | LOCK_NB) == 0) return;
  if (errno != EWOULDBLOCK) die(1, "lock", g_pid_path);
  char pid[32] = {};
  ssize_t size = ::pread(g_pid_file, pid, sizeof pid - 1, 0);
  pid[size > 0 ? std::strcspn(pid, "\n") : 0] = 0;
  std::fprintf(stderr, "hydrant-keeper: a keeper (pid %s) runs %s already\n", pid, root);
  std::exit(kAlreadyRunning);
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

// In the child. Async-signal-safe calls only.
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
  ::execvp(program.path, program.arguments);
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
}

void reap(Supervision& supervision) {
  int status;
  for (pid_t pid; (pid = ::waitpid(-1, &status, WNOHANG)) > 0;)
    supervision.ended(pid, WIFEXITED(status) ? std::optional(WEXITSTATUS(status)) : std::nullopt,
                      std::chrono::steady_clock::now());
}

// Returns the exit status: 0 after an ordered stop, else that of the child that could not be started.
int supervise() {
  sigset_t signals;
  sigemptyset(&signals);
  for (int number : {SIGTERM, SIGINT, SIGCHLD}) sigaddset(&signals, number);
  ::sigprocmask(SIG_BLOCK, &signals, nullptr);
  Supervision supervision(std::chrono::steady_clock::now());
  for (;;) {
    auto now = std::chrono::steady_clock::now();
    while (auto child = supervision.due(now)) start(supervision, *child);
    // A pid is ours until we reap it, so this never hits a stranger.
    while (auto signal = supervision.signal_due(now)) ::kill(signal->pid, signal->number);
    if (supervision.phase() == Phase::kDone) return supervision.refusal() ? supervision.refusal()->status : 0;
    int got;
    if (auto next = supervision.next_event()) {
      auto left = std::max(*next - std::chrono::steady_clock::now(), Duration(0));
      timespec wait{time_t(left.count() / 1'000'000'000), long(left.count() % 1'000'000'000)};
      got = ::sigtimedwait(&signals, nullptr, &wait);
    } else {
      got = ::sigwaitinfo(&signals, nullptr);
    }
    if (got == SIGTERM || got == SIGINT) supervision.stop(std::chrono::steady_clock::now());
    reap(supervision);
  }
}

}  // namespace

int main(int argc, char** argv) {
  const char* root = nullptr;
  bool foreground = false;
  int fetchd_arguments = argc;
  for (int i = 1; i < argc; ++i) {
    if (!std::strcmp(argv[i], "--root") && i + 1 < argc) {
      root = argv[++i];
    } else if (!std::strncmp(argv[i], "--root=", 7)) {
      root = argv[i] + 7;
    } else if (!std::strcmp(argv[i], "--foreground")) {
      foreground = true;
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
  if (!foreground) daemonize();
  write_pid();
  int status = supervise();
  // The file stays: unlinking it could leave two holders of two locks.
  return ::ftruncate(g_pid_file, 0) && status == 0 ? 1 : status;
}
