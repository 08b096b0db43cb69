#include "source/auth/credential_helper.h"

#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include <algorithm>
#include <cctype>
#include <cerrno>
#include <nlohmann/json.hpp>

#include "base/fd.h"

extern char** environ;

namespace hydrant::source {

namespace {

constexpr auto kLimit = std::chrono::seconds(10);
constexpr size_t kMaxOutput = 64 << 10;

// A child in a process group of its own. The destructor kills the whole group, then reaps the child.
class Child {
 public:
  explicit Child(pid_t pid) : pid_(pid), pidfd_(static_cast<int>(::syscall(SYS_pidfd_open, pid, 0))) {}
  Child(const Child&) = delete;
  ~Child() {
    ::kill(-pid_, SIGKILL);
    if (!reaped_) ::waitpid(pid_, nullptr, 0);
  }
  // The exit status; -1 for a signal; nothing when it still runs at the deadline.
  std::optional<int> wait(Deadline deadline) {
    pollfd ended{.fd = pidfd_.get(), .events = POLLIN, .revents = 0};
    while (::poll(&ended, 1, deadline.left_ms()) < 0 && errno == EINTR) continue;
    if (!(ended.revents & POLLIN)) return std::nullopt;
    int status = 0;
    if (::waitpid(pid_, &status, 0) != pid_) return -1;
    reaped_ = true;
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  }

 private:
  const pid_t pid_;
  const Fd pidfd_;
  bool reaped_ = false;
};

// `ours` is the other end of the child's standard input and output.
Result<pid_t> spawn(const std::string& program, const Fd& theirs) {
  posix_spawn_file_actions_t actions;
  posix_spawnattr_t attributes;
  posix_spawn_file_actions_init(&actions);
  posix_spawnattr_init(&attributes);
  posix_spawn_file_actions_adddup2(&actions, theirs.get(), 0);
  posix_spawn_file_actions_adddup2(&actions, theirs.get(), 1);
  posix_spawn_file_actions_addopen(&actions, 2, "/dev/null", O_WRONLY, 0);
  posix_spawnattr_setpgroup(&attributes, 0);
  posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETPGROUP);
  char get[] = "get";
  std::string name = program;
  char* arguments[] = {name.data(), get, nullptr};
  pid_t pid = 0;
  int error = ::posix_spawnp(&pid, program.c_str(), &actions, &attributes, arguments, environ);
  posix_spawnattr_destroy(&attributes);
  posix_spawn_file_actions_destroy(&actions);
  if (error == ENOENT) return fail(Code::kNotFound, program + " is named by the docker config, but is not installed");
  if (error) return fail_sys(error, "run " + program);
  return pid;
}

Result<Credentials> credentials_of(const std::string& program, const std::string& output) {
  auto json = nlohmann::json::parse(output, nullptr, false);
  auto text = [&](const char* name) {
    auto found = json.find(name);
    return found != json.end() && found->is_string() ? found->get<std::string>() : std::string();
  };
  // The output holds the secret, so it is not quoted.
  if (!json.is_object() || text("Secret").empty())
    return fail(Code::kCorrupt, program + ": its output is no credentials");
  Credentials out;
  if (text("Username") == "<token>") {
    out.identity_token = text("Secret");
  } else {
    out.username = text("Username");
    out.password = text("Secret");
  }
  return out;
}

}  // namespace

Result<Credentials> run_credential_helper(const std::string& helper, const std::string& server, Deadline deadline) {
  const auto program = "docker-credential-" + helper;
  if (helper.empty() || helper.size() > 64 || !std::all_of(helper.begin(), helper.end(), [](unsigned char c) {
        return std::isalnum(c) || c == '-' || c == '_' || c == '.';
      }))
    return fail(Code::kInvalid, "the docker config names a credential helper with a malformed name");
  deadline = deadline.sooner(Deadline::after(kLimit));

  // A socket pair and not pipes: writing to a helper that does not read raises no SIGPIPE.
  int pair[2];
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair)) return fail_sys(errno, "socketpair");
  Fd ours(pair[0]), theirs(pair[1]);
  HYDRANT_TRY(pid_t pid, spawn(program, theirs));
  Child child(pid);
  theirs.reset();
  if (::send(ours.get(), server.data(), server.size(), MSG_NOSIGNAL | MSG_DONTWAIT) < 0 && errno != EPIPE)
    return fail_sys(errno, program);
  ::shutdown(ours.get(), SHUT_WR);

  std::string output;
  for (char buffer[4096];;) {
    pollfd readable{.fd = ours.get(), .events = POLLIN, .revents = 0};
    int ready = ::poll(&readable, 1, deadline.left_ms());
    if (ready < 0 && errno == EINTR) continue;
    if (ready <= 0) return fail(Code::kTooSlow, program + " did not answer in time");
    ssize_t n = ::recv(ours.get(), buffer, sizeof buffer, 0);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) break;  // a reset is an end, too: the exit status tells
    output.append(buffer, static_cast<size_t>(n));
    if (output.size() > kMaxOutput) return fail(Code::kCorrupt, program + ": its output does not end");
  }
  auto status = child.wait(deadline);
  if (!status) return fail(Code::kTooSlow, program + " did not end in time");
  if (*status == 0) return credentials_of(program, output);
  // The sentence that every helper uses for "I know that server not".
  if (output.find("credentials not found") != std::string::npos) return Credentials{};
  std::string said = output.substr(0, 200);
  for (char& c : said)
    if (!std::isprint(static_cast<unsigned char>(c))) c = ' ';
  return fail(Code::kIo, program + " failed: " + said);
}

}  // namespace hydrant::source
