// upgrade: other binaries under running mounts. Each process is replaced while its neighbours hold what it must not
// lose: hydrantd gives the new keeper its descriptors, the keeper gives them to the new hydrantd, and what the old
// fetchd has not answered is asked of the new one. Readers wait meanwhile.
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/file.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <optional>

#include "base/file.h"
#include "cli/daemons.h"
#include "cli/render.h"
#include "cli/verbs.h"

namespace hydrant::cli {
namespace {

using proto::FetchdRequest;
using proto::HydrantdRequest;

constexpr auto kPatience = std::chrono::seconds(30);  // for each process

tl::unexpected<Failure> give_up(Failure failure) { return tl::unexpected<Failure>(std::move(failure)); }

// The words of /proc/PID/cmdline or environ.
Result<std::vector<std::string>> words_of(pid_t pid, const std::string& file) {
  HYDRANT_TRY(std::string text, read_file("/proc/" + std::to_string(pid) + "/" + file, 1 << 20));
  std::vector<std::string> words;
  for (size_t at = 0; at < text.size(); at = text.find('\0', at) + 1) words.emplace_back(text.c_str() + at);
  return words;
}

// True once it holds the kernel's end of the blob files: from then on a death of hydrantd is one that readers outwait.
bool holds_blob_files(int64_t keeper) {
  std::error_code error;
  std::filesystem::directory_iterator at("/proc/" + std::to_string(keeper) + "/fd", error);
  for (const std::filesystem::directory_iterator end; !error && at != end; at.increment(error)) {
    std::error_code gone;
    if (std::filesystem::read_symlink(at->path(), gone) == "/dev/fuse") return true;
  }
  return false;
}

template <class Condition>
bool wait_for(Condition condition) {
  for (Deadline deadline = Deadline::after(kPatience); !condition(); ::poll(nullptr, 0, 10))
    if (deadline.passed()) return false;
  return true;
}

std::vector<char*> pointers(std::vector<std::string>& words) {
  std::vector<char*> out;
  for (auto& word : words) out.push_back(word.data());
  out.push_back(nullptr);
  return out;
}

// Waits until it has ended, or runs by itself. Quiet.
Result<> run_program(std::vector<std::string> words, std::vector<std::string> environment,
                     const std::string& directory) {
  posix_spawn_file_actions_t actions;
  ::posix_spawn_file_actions_init(&actions);
  ::posix_spawn_file_actions_addopen(&actions, 1, "/dev/null", O_WRONLY, 0);
  ::posix_spawn_file_actions_addchdir_np(&actions, directory.c_str());
  pid_t pid = -1;
  int err =
      ::posix_spawn(&pid, words[0].c_str(), &actions, nullptr, pointers(words).data(), pointers(environment).data());
  ::posix_spawn_file_actions_destroy(&actions);
  if (err) return fail_sys(err, words[0]);
  int status = 0;
  if (!wait_for([&] { return ::waitpid(pid, &status, WNOHANG) != 0; })) {
    ::kill(pid, SIGKILL);
    ::waitpid(pid, &status, 0);
    return fail(Code::kTooSlow, words[0] + " does not come to an end");
  }
  if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) return fail(Code::kIo, words[0] + " does not run");
  return {};
}

class Upgrade {
 public:
  explicit Upgrade(const CommonOptions& common) : daemons_{common.root} {}

  Outcome run() {
    if (auto ready = daemons_.check_ready(); !ready) return give_up(explain_absence(daemons_, ready.error()));
    auto binaries = Daemons::binaries();
    if (!binaries) return give_up(std::move(binaries).error());
    // Before anything is touched: what cannot run here must not take the place of what does.
    for (const auto* name : {"hydrantd", "hydrant-fetchd"})
      if (auto runs = run_program({*binaries + "/" + name, "--version"}, {}, "/"); !runs) return give_up(runs.error());
    if (auto done = replace_keeper(*binaries); !done) return done;
    if (auto done = replace(
            "hydrantd", [&] { return daemons_.hydrantd(); }, HydrantdRequest(proto::StatusRequest{}));
        !done)
      return done;
    return replace(
        "hydrant-fetchd", [&] { return daemons_.fetchd(); }, FetchdRequest(proto::StatusRequest{}));
  }
  const std::vector<DaemonVersion>& now() const { return now_; }

 private:
  Outcome replace_keeper(const std::string& binaries) {
    const auto old = daemons_.keeper();
    if (!old)
      return give_up({ExitStatus::kNoDaemon, "no hydrant-keeper runs under " + daemons_.root +
                                                 "; whoever supervises the daemons restarts them"});
    if (auto group = read_file("/proc/" + std::to_string(old->pid) + "/cgroup", 64 << 10);
        group && group->find(".service\n") != std::string::npos)
      return give_up({ExitStatus::kUnsupported,
                      "systemd supervises the daemons under " + daemons_.root + "; systemctl restart its unit"});
    auto words = words_of(old->pid, "cmdline"), environment = words_of(old->pid, "environ");
    std::error_code error;
    auto directory = std::filesystem::read_symlink("/proc/" + std::to_string(old->pid) + "/cwd", error);
    if (!words || words->empty() || !environment || error)
      return give_up(Failure(ExitStatus::kIo, "hydrant-keeper: what it was started with cannot be read"));
    words->front() = binaries + "/hydrant-keeper";
    words->erase(std::remove(words->begin(), std::find(words->begin(), words->end(), "--fetchd-args"), "--foreground"),
                 std::find(words->begin(), words->end(), "--fetchd-args"));
    old->signal(SIGKILL);
    if (!wait_for([&] { return !old->alive(); }))
      return give_up({ExitStatus::kTooSlow, "the old hydrant-keeper stays"});
    if (auto started = run_program(*words, *environment, directory.string()); !started) return give_up(started.error());
    auto holds = [&] {
      auto now = daemons_.keeper();
      return now && now->pid != old->pid && holds_blob_files(now->pid);
    };
    if (!wait_for(holds))
      return give_up({ExitStatus::kTooSlow, "the new hydrant-keeper did not get what hydrantd holds"});
    return {};
  }

  template <class Connect, class Request>
  Outcome replace(const std::string& name, Connect connect, const Request& request) {
    auto status = [&]() -> std::optional<proto::StatusReply> {
      auto client = connect();
      auto reply = client ? client->template call<proto::StatusReply>(request) : fail(std::move(client.error()));
      return reply ? std::optional(*reply) : std::nullopt;
    };
    auto before = status();
    if (!before) return give_up({ExitStatus::kNoDaemon, name + " does not answer"});
    ::kill(static_cast<pid_t>(before->pid), SIGKILL);
    std::optional<proto::StatusReply> after;
    auto is_back = [&] {
      after = status();
      return after && after->pid != before->pid && after->attached;
    };
    if (!wait_for(is_back))
      return give_up(
          {ExitStatus::kTooSlow, "the new " + name + " does not serve; see the logs in " + daemons_.run_dir()});
    now_.push_back({name, *after});
    return {};
  }

  const Daemons daemons_;
  std::vector<DaemonVersion> now_;
};

}  // namespace

Outcome run_upgrade(const CommonOptions& common) {
  Upgrade upgrade(common);
  if (auto done = upgrade.run(); !done) return done;
  render_version(common.json, upgrade.now());
  return {};
}

}  // namespace hydrant::cli
