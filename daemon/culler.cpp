#include "daemon/culler.h"

#include <dirent.h>
#include <fcntl.h>
#include <pthread.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>

#include "base/file.h"
#include "base/log.h"
#include "base/nap.h"

namespace hydrant::daemon {

namespace {

constexpr int kDepth = 3;  // cache/, volumes, fan-out directories: objects lie at most so deep
// Of a quota; what is freed at once, so that it is not done for every megabyte.
constexpr uint64_t low_water(uint64_t quota) { return quota / 20 * 19; }
constexpr uint64_t kStep =
    256 << 20;  // asked of those in use where only the engine's thresholds say how much is enough
// What was read or written in that time is not given back. More than fetch's memory of what it wrote just now
// (FillOptions::fresh).
constexpr Duration kUnread = std::chrono::seconds(3);
constexpr int kSweeps = 3;  // the first tells what has been read since the last time only

// `visit` gets the folder below `root`, the name and its status, for every regular file.
Result<> walk(int directory, const std::string& folder, int depth,
              const std::function<void(const std::string&, const char*, const struct stat&)>& visit) {
  int again = ::openat(directory, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  std::unique_ptr<DIR, int (*)(DIR*)> entries(again < 0 ? nullptr : ::fdopendir(again), ::closedir);
  if (!entries) return fail_sys(errno, "read the cache's directories");
  while (const dirent* entry = ::readdir(entries.get())) {
    const std::string_view name = entry->d_name;
    if (name == "." || name == "..") continue;
    struct stat status {};
    if (::fstatat(directory, entry->d_name, &status, AT_SYMLINK_NOFOLLOW) != 0) continue;  // it has just gone
    if (S_ISREG(status.st_mode)) visit(folder, entry->d_name, status);
    if (!S_ISDIR(status.st_mode) || depth == 0) continue;
    Fd below(::openat(directory, entry->d_name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
    if (below) HYDRANT_TRY_VOID(walk(below.get(), folder + entry->d_name + "/", depth - 1, visit));
  }
  return {};
}

}  // namespace

Culler::Culler(cachefiles::Engine& engine, std::shared_ptr<cachefiles::Channel> channel, CullerOptions options,
               const Pins& pins, Live live)
    : engine_(engine), channel_(std::move(channel)), options_(std::move(options)), pins_(pins), live_(std::move(live)) {
  thread_ = std::jthread([this] {
    pthread_setname_np(pthread_self(), "culler");
    run();
  });
}

Culler::~Culler() { stop_.request_stop(); }

bool Culler::pause(Duration duration) const {
  nap(stop_.get_token(), duration);
  return !stop_.stop_requested();
}

void Culler::run() {
  for (Instant walked{}; pause(options_.pause);) {
    const Instant now = Clock::system().now();
    const bool due = options_.quota != 0 && now - walked >= options_.walk;
    if (!due && !short_of_space()) continue;
    walked = now;
    if (auto done = collect(std::nullopt); !done) log::warn("cull.failed", {{"why", done.error().what}});
  }
}

bool Culler::short_of_space() {
  for (const auto& cache : engine_.listing(0).caches)
    if (cache.culling) return true;
  return false;
}

Result<std::vector<Culler::Victim>> Culler::survey() const {
  std::vector<Victim> out;
  HYDRANT_TRY(Fd top, open_file(options_.directory, O_RDONLY | O_DIRECTORY));
  HYDRANT_TRY_VOID(walk(top.get(), "", kDepth - 1, [&](const auto& folder, const char* name, const auto& status) {
    const timespec used = status.st_atim.tv_sec > status.st_mtim.tv_sec ? status.st_atim : status.st_mtim;
    out.push_back({folder, name, static_cast<uint64_t>(status.st_blocks) * 512,
                   int64_t{used.tv_sec} * 1'000'000'000 + used.tv_nsec,
                   pins_.hold_file(folder.substr(0, folder.find('/')), name)});
  }));
  std::ranges::sort(out, {}, &Victim::used_at);
  return out;
}

// 0 or -errno; -EBUSY: it is in use.
int Culler::cull(const Victim& victim) {
  auto folder = open_file(options_.directory + "/" + victim.folder, O_PATH | O_DIRECTORY);
  if (!folder) return -folder.error().sys;
  const std::string command = "cull " + victim.name;
  const int64_t done = channel_->write(as_bytes(command), {.cwd = folder->get()});
  return done < 0 ? static_cast<int>(done) : 0;
}

void Culler::cull_unused(const std::vector<Victim>& victims, const Enough& enough, proto::GcReply& reply) {
  for (const Victim& victim : victims) {
    if (stop_.stop_requested() || enough(reply.usage)) return;
    if (victim.pinned || cull(victim) != 0) continue;
    reply.usage -= victim.bytes;
    reply.freed += victim.bytes;
    ++reply.objects;
  }
}

// Those in use are asked once a sweep: asking tells what was read since, and forgets it.
void Culler::discard_unread(uint64_t target, const Enough& enough, proto::GcReply& reply) {
  for (int sweep = 0; sweep < kSweeps && !enough(reply.usage); ++sweep) {
    if (live_().empty()) return;  // the rest is pinned
    if (const auto age = Clock::system().now() - swept_; age < kUnread && !pause(kUnread - age)) return;
    swept_ = Clock::system().now();
    for (const auto& cookie : live_()) {
      const bool done = enough(reply.usage);
      const uint64_t got = cookie->discard(done ? 0 : reply.usage > target ? reply.usage - target : kStep);
      reply.usage -= std::min(got, reply.usage);
      reply.freed += got;
    }
  }
}

Result<proto::GcReply> Culler::collect(std::optional<uint64_t> at_most) {
  std::lock_guard lock(one_at_a_time_);
  HYDRANT_TRY(auto victims, survey());
  proto::GcReply reply{.quota = options_.quota, .pins = pins_.sources()};
  for (const Victim& victim : victims) {
    reply.usage += victim.bytes;
    if (victim.pinned) reply.pinned += victim.bytes;
  }
  const bool over = options_.quota != 0 && reply.usage > options_.quota;
  const bool tight = short_of_space();
  const uint64_t target = over ? low_water(options_.quota) : reply.usage;
  Enough enough = [&](uint64_t usage) {
    if (at_most) return usage <= *at_most;
    return usage <= target && !(tight && short_of_space());
  };
  cull_unused(victims, enough, reply);
  if (!at_most) discard_unread(target, enough, reply);
  if (reply.freed > 0)
    log::info("culled", {{"objects", reply.objects}, {"freed", reply.freed}, {"usage", reply.usage}});
  if (!at_most && !enough(reply.usage))
    log::warn("cull.not-enough", {{"usage", reply.usage},
                                  {"quota", options_.quota},
                                  {"pinned", reply.pinned},
                                  {"why", "the rest is in use, or pinned"}});
  return reply;
}

}  // namespace hydrant::daemon
