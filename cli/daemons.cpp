#include "cli/daemons.h"

#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <map>
#include <vector>

#include "base/file.h"

extern char** environ;

namespace hydrant::cli {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr auto kConnectPatience = seconds(2);
constexpr auto kStartPatience = seconds(10);
constexpr auto kStopPatience = seconds(5);
constexpr int kKeeperRunsAlready = 3;  // its exit status: the daemons are being restarted

bool is_absence(const Error& error) { return error.code == Code::kNotFound || error.code == Code::kUnreachable; }

Result<std::string> keeper_path() {
  HYDRANT_TRY(const std::string binaries, Daemons::binaries());
  auto keeper = binaries + "/hydrant-keeper";
  if (::access(keeper.c_str(), X_OK)) return fail(Code::kNotFound, "no hydrant-keeper in " + binaries);
  return keeper;
}

// In a session of its own, so that a Ctrl-C meant for the CLI does not reach it; its output goes to `log`. In the
// foreground for as long as we may have to take it back; our end leaves it to init.
Result<pid_t> spawn_keeper(const std::string& keeper, const std::string& root, int log) {
  posix_spawn_file_actions_t actions;
  posix_spawnattr_t attributes;
  ::posix_spawn_file_actions_init(&actions);
  ::posix_spawnattr_init(&attributes);
  ::posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
  ::posix_spawn_file_actions_adddup2(&actions, log, 1);
  ::posix_spawn_file_actions_adddup2(&actions, log, 2);
  ::posix_spawn_file_actions_addchdir_np(&actions, "/");
  sigset_t none;
  sigemptyset(&none);
  ::posix_spawnattr_setsigmask(&attributes, &none);
  ::posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSID | POSIX_SPAWN_SETSIGMASK);
  std::vector<std::string> words = {keeper, "--root", root, "--foreground"};
  std::vector<char*> arguments;
  for (auto& word : words) arguments.push_back(word.data());
  arguments.push_back(nullptr);
  pid_t pid = -1;
  int err = ::posix_spawn(&pid, keeper.c_str(), &actions, &attributes, arguments.data(), environ);
  ::posix_spawn_file_actions_destroy(&actions);
  ::posix_spawnattr_destroy(&attributes);
  if (err) return fail_sys(err, keeper);
  return pid;
}

// The keeper ends its children in order, then itself. One that takes longer is left to finish alone.
void take_back(pid_t keeper) {
  ::kill(keeper, SIGTERM);
  Deadline deadline = Deadline::after(kStopPatience);
  while (::waitpid(keeper, nullptr, WNOHANG) == 0 && !deadline.passed()) ::poll(nullptr, 0, 10);
}

// What the logs of the daemons tell since this was made.
class NewWords {
 public:
  explicit NewWords(const std::string& run_dir) : run_dir_(run_dir) {
    for_each_log([&](const std::filesystem::directory_entry& log) {
      std::error_code error;
      sizes_[log.path()] = log.file_size(error);
    });
  }

  // The reason a daemon gave for its end ("hydrantd: …"), else the last error that was logged, else the last line.
  std::string last() const {
    std::string best;
    int best_rank = 0;
    for_each_log([&](const std::filesystem::directory_entry& log) {
      auto text = read_file(log.path(), kMaxLog);
      if (!text) return;
      auto known = sizes_.find(log.path());
      size_t at = known == sizes_.end() || known->second > text->size() ? 0 : known->second;
      while (at < text->size()) {
        size_t end = std::min(text->find('\n', at), text->size());
        std::string line = text->substr(at, end - at);
        at = end + 1;
        int rank = line.starts_with("hydrant") ? 3 : line.find(" error ") != line.npos ? 2 : line.empty() ? 0 : 1;
        if (rank > 0 && rank >= best_rank) best = line, best_rank = rank;
      }
    });
    return best;
  }

 private:
  static constexpr size_t kMaxLog = 16 << 20;  // the keeper cuts logs at half of it, at their start

  template <class Visit>
  void for_each_log(Visit&& visit) const {
    std::error_code error;
    for (const auto& entry : std::filesystem::directory_iterator(run_dir_, error))
      if (entry.path().extension() == ".log") visit(entry);
  }

  const std::string run_dir_;
  std::map<std::filesystem::path, uintmax_t> sizes_;
};

// Of a keeper whose child refused to start: the child's status, where it is one of ours.
ExitStatus refusal_status(int status) {
  for (ExitStatus known : {ExitStatus::kDenied, ExitStatus::kNoSpace, ExitStatus::kCorrupt, ExitStatus::kUnsupported})
    if (WIFEXITED(status) && WEXITSTATUS(status) == static_cast<int>(known)) return known;
  return ExitStatus::kNoDaemon;
}

}  // namespace

Result<std::string> Daemons::binaries() {
  std::error_code error;
  auto self = std::filesystem::read_symlink("/proc/self/exe", error);
  if (error) return fail_sys(error.value(), "/proc/self/exe");
  return self.parent_path().string();
}

Result<AdminClient> Daemons::hydrantd() const {
  return AdminClient::connect(hydrantd_socket(), "hydrantd", Deadline::after(kConnectPatience));
}

Result<AdminClient> Daemons::fetchd() const {
  return AdminClient::connect(fetchd_socket(), "hydrant-fetchd", Deadline::after(kConnectPatience));
}

RunningProcess RunningProcess::of(pid_t pid) {
  return {pid, Fd(pid > 1 ? static_cast<int>(::syscall(SYS_pidfd_open, pid, 0)) : -1)};
}

bool RunningProcess::alive() const {
  pollfd end{handle.get(), POLLIN, 0};
  return handle && ::poll(&end, 1, 0) == 0;
}

void RunningProcess::signal(int number) const {
  if (handle) ::syscall(SYS_pidfd_send_signal, handle.get(), number, nullptr, 0);
}

std::optional<RunningProcess> Daemons::keeper() const {
  auto file = open_file(run_dir() + "/keeper.pid", O_RDONLY);
  if (!file) return std::nullopt;
  auto is_locked = [&] {
    if (::flock(file->get(), LOCK_EX | LOCK_NB) != 0) return errno == EWOULDBLOCK;
    ::flock(file->get(), LOCK_UN);
    return false;
  };
  char text[32] = {};
  if (!is_locked() || ::pread(file->get(), text, sizeof text - 1, 0) <= 0) return std::nullopt;
  RunningProcess keeper = RunningProcess::of(std::atoi(text));
  if (!keeper.handle || !is_locked()) return std::nullopt;
  return keeper;
}

Result<> Daemons::check_ready() const {
  HYDRANT_TRY(AdminClient front, hydrantd());
  HYDRANT_TRY(auto front_status, front.call<proto::StatusReply>(proto::HydrantdRequest(proto::StatusRequest{})));
  HYDRANT_TRY(AdminClient fetcher, fetchd());
  HYDRANT_TRY(auto fetch_status, fetcher.call<proto::StatusReply>(proto::FetchdRequest(proto::StatusRequest{})));
  if (!front_status.attached || !fetch_status.attached) {
    return fail(Code::kUnreachable, "hydrant-fetchd is not attached to hydrantd");
  }
  return {};
}

tl::expected<void, Failure> Daemons::ensure_running() const {
  if (check_ready()) return {};
  if (auto made = make_directories(run_dir()); !made) return tl::unexpected(Failure(made.error()));
  auto lock = open_file(run_dir() + "/start.lock", O_RDWR | O_CREAT);
  if (!lock) return tl::unexpected(Failure(lock.error()));
  Deadline deadline = Deadline::after(kStartPatience);
  while (::flock(lock->get(), LOCK_EX | LOCK_NB)) {
    if (deadline.passed()) {
      return tl::unexpected(Failure(ExitStatus::kNoDaemon, "another hydrant is starting daemons under " + root));
    }
    ::poll(nullptr, 0, 20);
  }
  auto ready = check_ready();
  if (ready) return {};
  // Stuck daemons are not ours to start a second time.
  if (!is_absence(ready.error())) return tl::unexpected(Failure(ready.error()));
  return start_and_wait(deadline);
}

tl::expected<void, Failure> Daemons::start_and_wait(Deadline deadline) const {
  auto keeper = keeper_path();
  if (!keeper) return tl::unexpected(Failure(ExitStatus::kNoDaemon, keeper.error().what));
  auto log = open_file(run_dir() + "/keeper.log", O_WRONLY | O_CREAT | O_APPEND);
  if (!log) return tl::unexpected(Failure(log.error()));
  NewWords words(run_dir());
  auto pid = spawn_keeper(*keeper, root, log->get());
  if (!pid) return tl::unexpected(Failure(ExitStatus::kNoDaemon, pid.error().what));
  bool running = true;
  for (;;) {
    auto ready = check_ready();
    if (ready) return {};
    int status = 0;
    bool ended = running && ::waitpid(*pid, &status, WNOHANG) == *pid;
    if (ended) running = false;
    bool failed = ended && !(WIFEXITED(status) && WEXITSTATUS(status) == kKeeperRunsAlready);
    if (failed || deadline.passed()) {
      if (running) take_back(*pid);
      std::string what = "the daemons did not start under " + root;
      if (auto last = words.last(); !last.empty()) what += ": " + last;
      return tl::unexpected(
          Failure(failed ? refusal_status(status) : ExitStatus::kNoDaemon, what + " (logs: " + run_dir() + ")"));
    }
    ::poll(nullptr, 0, 10);
  }
}

Failure explain_absence(const Daemons& daemons, Error error) {
  if (is_absence(error)) {
    if (!daemons.engine.empty()) return Failure(ExitStatus::kNoDaemon, "no engine answers at " + daemons.engine);
    return Failure(ExitStatus::kNoDaemon,
                   "no daemon runs under " + daemons.root + "; `hydrant mount` starts one, --root names another place");
  }
  return Failure(std::move(error));
}

}  // namespace hydrant::cli
