// upgrade: other binaries under running mounts. Each process is replaced while its neighbours hold what it must not
// lose: hydrantd gives the new keeper its descriptors, the keeper gives them to the new hydrantd, and what the old
// fetchd has not answered is asked of the new one. Readers wait meanwhile.
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>

#include <cerrno>
#include <cstdlib>
#include <filesystem>

#include "base/file.h"
#include "cli/daemons.h"
#include "cli/render.h"
#include "cli/verbs.h"

extern char** environ;

namespace hydrant::cli {
namespace {

using proto::FetchdRequest;
using proto::HydrantdRequest;

constexpr auto kPatience = std::chrono::seconds(30);  // for each process

tl::unexpected<Failure> give_up(Failure failure) { return tl::unexpected<Failure>(std::move(failure)); }

bool alive(int64_t pid) {
  auto stat = read_file("/proc/" + std::to_string(pid) + "/stat", 4096);
  return stat && stat->find(") Z") == std::string::npos;
}

// The words that a process was started with.
Result<std::vector<std::string>> words_of(int64_t pid) {
  HYDRANT_TRY(std::string text, read_file("/proc/" + std::to_string(pid) + "/cmdline", 1 << 20));
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

// Until it runs by itself.
Result<> run_to_its_end(std::vector<std::string> words) {
  std::vector<char*> arguments;
  for (auto& word : words) arguments.push_back(word.data());
  arguments.push_back(nullptr);
  pid_t pid = -1;
  if (int err = ::posix_spawn(&pid, arguments[0], nullptr, nullptr, arguments.data(), environ))
    return fail_sys(err, words[0]);
  int status = 0;
  while (::waitpid(pid, &status, 0) < 0 && errno == EINTR) continue;
  if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) return fail(Code::kIo, words[0] + " did not start");
  return {};
}

class Upgrade {
 public:
  explicit Upgrade(const CommonOptions& common) : daemons_{common.root} {}

  Outcome run() {
    if (auto ready = daemons_.check_ready(); !ready) return give_up(explain_absence(daemons_, ready.error()));
    auto binaries = Daemons::binaries();
    if (!binaries) return give_up(std::move(binaries).error());
    for (const auto* name : {"hydrantd", "hydrant-fetchd"})
      if (::access((*binaries + "/" + name).c_str(), X_OK))
        return give_up({ExitStatus::kNotFound, "no " + std::string(name) + " in " + *binaries});
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
  int64_t keeper() const {
    auto text = read_file(daemons_.run_dir() + "/keeper.pid", 64);
    return text ? std::strtoll(text->c_str(), nullptr, 10) : 0;
  }

  Outcome replace_keeper(const std::string& binaries) {
    const int64_t old = keeper();
    if (old <= 0 || !alive(old))
      return give_up({ExitStatus::kNoDaemon, "no hydrant-keeper runs under " + daemons_.root +
                                                 "; whoever supervises the daemons restarts them"});
    auto words = words_of(old);
    if (!words || words->empty()) return give_up(Failure(ExitStatus::kIo, "hydrant-keeper: its command line is gone"));
    words->front() = binaries + "/hydrant-keeper";
    std::erase(*words, "--foreground");
    ::kill(static_cast<pid_t>(old), SIGKILL);
    if (!wait_for([&] { return !alive(old); })) return give_up({ExitStatus::kTooSlow, "the old hydrant-keeper stays"});
    if (auto started = run_to_its_end(*words); !started) return give_up(started.error());
    if (!wait_for([&] { return keeper() != old && holds_blob_files(keeper()); }))
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
