// doctor: what is wrong with this machine, the daemons, the cache and the mounts, and what to do about it.
#include <fmt/chrono.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>

#include "base/file.h"
#include "base/version.h"
#include "cli/daemons.h"
#include "cli/process_rights.h"
#include "cli/progress_bar.h"
#include "cli/render.h"
#include "cli/verbs.h"

namespace hydrant::cli {
namespace {

using proto::FetchdRequest;
using proto::HydrantdRequest;

constexpr Duration kRepairSilence = std::chrono::seconds(60);

class Doctor {
 public:
  Doctor(const CommonOptions& common, bool repair) : daemons_{common.root}, repair_(repair) {}

  void look() {
    look_at_machine();
    look_at_daemons();
    if (!hydrantd_) return;
    look_at_cache();
    look_at_mounts();
  }

  const std::vector<Check>& checks() const { return checks_; }
  const std::vector<ProcessRights>& processes() const { return processes_; }
  bool healthy() const {
    for (const Check& check : checks_)
      if (!check.good) return false;
    return true;
  }

 private:
  void add(std::string name, bool good, std::string what, std::string way_out = {}) {
    checks_.push_back({std::move(name), good, std::move(what), good ? std::string() : std::move(way_out)});
  }

  void look_at_machine() {
    add("machine.root", ::geteuid() == 0, ::geteuid() == 0 ? "we are root" : "we are not root",
        "sudo hydrant doctor: the daemons' sockets are root's");
    const bool fuse = ::access("/dev/fuse", R_OK | W_OK) == 0;
    add("machine.fuse", fuse, fuse ? "/dev/fuse is there" : "no /dev/fuse", "modprobe fuse");
    auto kinds = read_file("/proc/filesystems", 64 << 10);
    const bool erofs = kinds && kinds->find("\terofs\n") != std::string::npos;
    add("machine.erofs", erofs, erofs ? "the kernel has EROFS" : "the kernel has no EROFS",
        "modprobe erofs; Linux 6.12 or later with CONFIG_EROFS_FS_BACKED_BY_FILE");
  }

  // The daemons' own pids, as they say; the keeper's, as it wrote it.
  void look_at_daemons() {
    if (repair_)
      if (auto started = daemons_.ensure_running(); !started)
        add("daemon.start", false, started.error().what, "see the logs in " + daemons_.run_dir());
    const std::string start = "hydrant doctor --repair starts them, as any mount does";
    if (auto client = daemons_.hydrantd()) {
      auto status = client->call<proto::StatusReply>(HydrantdRequest(proto::StatusRequest{}));
      told("hydrantd", status);
      if (status) {
        hydrantd_ = std::move(*client);
        add("daemon.attached", status->attached,
            status->attached ? "a user daemon is on the control channel" : "no user daemon is on the control channel",
            "see " + daemons_.run_dir() + "/fetchd.log: reads of what is not cached wait, then fail");
        add("machine.erofs", status->erofs_file_backed || status->erofs_over_loops,
            status->erofs_file_backed  ? "mounts files"
            : status->erofs_over_loops ? "mounts files over loop devices (Linux before 6.12)"
                                       : "mounts neither files nor loop devices under this root",
            "Linux 6.12 or later with CONFIG_EROFS_FS_BACKED_BY_FILE, or loop devices; a cache on ext4, xfs or btrfs");
      }
    } else {
      add("daemon.hydrantd", false, "does not answer under " + daemons_.root, start);
    }
    if (auto client = daemons_.fetchd()) {
      told("hydrant-fetchd", client->call<proto::StatusReply>(FetchdRequest(proto::StatusRequest{})));
    } else {
      add("daemon.hydrant-fetchd", false, "does not answer under " + daemons_.root, start);
    }
    auto text = read_file(daemons_.run_dir() + "/keeper.pid", 64);
    const int64_t keeper = text ? std::strtoll(text->c_str(), nullptr, 10) : 0;
    auto rights = keeper > 0 ? rights_of("hydrant-keeper", keeper) : std::nullopt;
    if (rights) processes_.push_back(std::move(*rights));
  }

  void told(const std::string& name, const Result<proto::StatusReply>& status) {
    if (!status) {
      add("daemon." + name, false, status.error().what, "see its log in " + daemons_.run_dir());
      return;
    }
    const bool same = status->version == kVersion;
    add("daemon." + name, same, fmt::format("version {}, pid {}", status->version, status->pid),
        fmt::format("this program is {}: restart the daemon, its mounts stay", kVersion));
    if (auto rights = rights_of(name, status->pid)) {
      rights->landlock = status->landlock;
      rights->landlock_writes = status->writes;
      processes_.push_back(std::move(*rights));
    }
  }

  void look_at_cache() {
    auto engine = hydrantd_->call<proto::EngineReply>(HydrantdRequest(proto::EngineRequest{.cookies = 0}));
    if (!engine) return add("cache", false, engine.error().what, "see " + daemons_.run_dir() + "/hydrantd.log");
    for (const auto& cache : engine->caches) {
      const bool alive = cache.state == "A";
      add("cache.state", alive,
          alive ? "in service" : "the cache is dead after an error of its disk (state " + cache.state + ")",
          "see the kernel's log for errors of the disk of " + cache.dir + ", then hydrant stop, and mount anew");
      add("cache.space", !cache.culling, cache.culling ? "its disk is nearly full: culling" : "its disk has room",
          "make room on the disk of " + cache.dir + ", or hydrant gc --all");
    }
    look_at_scrub(engine->counters);
  }

  // What it finds is fetched anew, so it is told, and nothing is wrong here; but perhaps with the disk.
  void look_at_scrub(std::map<std::string, uint64_t>& counters) {
    std::string last = "no pass has ended since hydrantd's start";
    if (const auto ended_at = static_cast<time_t>(counters["scrub.ended_at"]))
      last = fmt::format("pass {} ended {:%F %T} UTC", counters["scrub.passes"], fmt::gmtime(ended_at));
    add("cache.scrub", true,
        fmt::format("{}; {} granules hashed again, {} did not match and are fetched anew", last,
                    counters["verify.scrubbed"], counters["verify.damaged"]));
  }

  void look_at_mounts() {
    auto list = hydrantd_->call<proto::ListReply>(HydrantdRequest(proto::ListRequest{}));
    if (!list) return add("mounts", false, list.error().what, "see " + daemons_.run_dir() + "/hydrantd.log");
    for (const auto& mount : list->mounts) {
      const std::string name = "mount." + mount.dir;
      if (mount.state == "live") {
        add(name, true, mount.source + " is alive");
        continue;
      }
      if (!repair_) {
        add(name, false, mount.source + " is dead: nobody held its files when its hydrantd died",
            "hydrant doctor --repair mounts it anew; hydrant umount --lazy " + mount.dir + " takes it down");
        continue;
      }
      auto repaired = hydrantd_->call<proto::MountReply>(HydrantdRequest(proto::RepairRequest{.dir = mount.dir}),
                                                         {.silence = kRepairSilence});
      add(name, repaired.has_value(),
          repaired ? mount.source + " was dead, and is mounted anew; programs that had files open must be restarted"
                   : repaired.error().what,
          "hydrant mount " + mount.source + " " + mount.dir);
    }
  }

  const Daemons daemons_;
  const bool repair_;
  std::optional<AdminClient> hydrantd_;
  std::vector<Check> checks_;
  std::vector<ProcessRights> processes_;
};

}  // namespace

Outcome run_doctor(const CommonOptions& common, const DoctorOptions& options) {
  Doctor doctor(common, options.repair);
  doctor.look();
  render_doctor(common.json, doctor.checks(), doctor.processes());
  if (doctor.healthy()) return {};
  return tl::unexpected(Failure(ExitStatus::kUnhealthy, "something is wrong, see above"));
}

}  // namespace hydrant::cli
