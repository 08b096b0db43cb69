// ls, stat, gc, stop, version.
#include <poll.h>
#include <sys/file.h>

#include <algorithm>
#include <csignal>
#include <filesystem>
#include <vector>

#include "base/file.h"
#include "cli/daemons.h"
#include "cli/render.h"
#include "cli/source_argument.h"
#include "cli/verbs.h"
#include "proto/reference.h"

namespace hydrant::cli {
namespace {

using proto::FetchdRequest;
using proto::HydrantdRequest;

tl::unexpected<Failure> give_up(Failure failure) { return tl::unexpected<Failure>(std::move(failure)); }

Duration from_seconds(double s) { return std::chrono::duration_cast<Duration>(std::chrono::duration<double>(s)); }

}  // namespace

Outcome run_ls(const CommonOptions& common) {
  Daemons daemons{common.root, common.socket};
  auto hydrantd = daemons.hydrantd();
  if (!hydrantd) return give_up(explain_absence(daemons, std::move(hydrantd).error()));
  auto list = hydrantd->call<proto::ListReply>(HydrantdRequest(proto::ListRequest{}));
  if (!list) return give_up(std::move(list).error());
  render_list(common.json, *list);
  return {};
}

Outcome run_stat(const CommonOptions& common, const std::string& dir) {
  Daemons daemons{common.root, common.socket};
  auto hydrantd = daemons.hydrantd();
  if (!hydrantd) return give_up(explain_absence(daemons, std::move(hydrantd).error()));
  auto stat = hydrantd->call<proto::StatMountReply>(HydrantdRequest(proto::StatMountRequest{.dir = resolve_dir(dir)}));
  if (!stat) return give_up(std::move(stat).error());
  std::optional<proto::ImageFacts> image;
  if (auto facts = proto::parse_image_facts(stat->image)) image = *std::move(facts);
  // What fetchd knows is an extra: a stuck one costs a second, not the answer.
  std::optional<proto::StatImageReply> fetched;
  Deadline deadline = Deadline::after(std::chrono::seconds(1));
  const bool ours = common.socket.empty();
  if (auto fetchd = daemons.fetchd(); fetchd && ours) {
    auto reply = fetchd->call<proto::StatImageReply>(FetchdRequest(proto::StatImageRequest{.fsid = stat->fsid}),
                                                     {.total = deadline});
    if (reply) fetched = *std::move(reply);
  }
  render_stat(common.json, *stat, image, fetched, ours);
  return {};
}

Outcome run_gc(const CommonOptions& common, const GcOptions& options) {
  Daemons daemons{common.root};
  auto hydrantd = daemons.hydrantd();
  if (!hydrantd) return give_up(explain_absence(daemons, std::move(hydrantd).error()));
  // As the mount that pinned it has named it.
  std::string unpin = options.unpin;
  const std::string absolute = proto::absolute_source(unpin, std::filesystem::current_path().string());
  if (auto source = proto::SourceReference::parse(absolute); source && !unpin.empty()) unpin = source->display();
  // A stuck daemon is found out within two seconds; deleting takes the disk's time.
  if (auto status = hydrantd->call<proto::StatusReply>(HydrantdRequest(proto::StatusRequest{})); !status)
    return give_up(std::move(status).error());
  auto reply =
      hydrantd->call<proto::GcReply>(HydrantdRequest(proto::GcRequest{.at_most = options.at_most, .unpin = unpin}),
                                     {.silence = std::chrono::minutes(10)});
  if (!reply) return give_up(std::move(reply).error());
  render_gc(common.json, *reply);
  return {};
}

Outcome run_stop(const CommonOptions& common, const StopOptions& options) {
  Daemons daemons{common.root};
  auto hydrantd = daemons.hydrantd();
  if (!hydrantd) return give_up(explain_absence(daemons, std::move(hydrantd).error()));
  // A stuck daemon is found out within two seconds; one that answers gets the time to unmount and flush.
  auto status = hydrantd->call<proto::StatusReply>(HydrantdRequest(proto::StatusRequest{}));
  if (!status) return give_up(std::move(status).error());
  // Sockets go first and locks last: who mounts before the processes have ended finds them in the way.
  std::vector<RunningProcess> ending;
  ending.push_back(RunningProcess::of(static_cast<pid_t>(status->pid)));
  auto keeper = daemons.keeper();
  Deadline deadline = Deadline::after(from_seconds(options.timeout_s));
  Patience patience{.total = deadline, .silence = from_seconds(options.timeout_s)};
  auto stopped = hydrantd->call<proto::EmptyReply>(HydrantdRequest(proto::StopRequest{}), patience);
  if (!stopped) return give_up(std::move(stopped).error());
  // One that took in a hydrantd of somebody else's hears nothing of this from it, and would start the next one.
  if (keeper) {
    keeper->signal(SIGTERM);
    ending.push_back(*std::move(keeper));
  }
  if (auto fetchd = daemons.fetchd()) {
    if (auto about = fetchd->call<proto::StatusReply>(FetchdRequest(proto::StatusRequest{}), patience))
      ending.push_back(RunningProcess::of(static_cast<pid_t>(about->pid)));
    auto reply = fetchd->call<proto::EmptyReply>(FetchdRequest(proto::StopRequest{}), patience);
    // Gone: the keeper was faster, having seen hydrantd end.
    if (!reply && reply.error().code != Code::kGone) return give_up(std::move(reply).error());
  }
  auto alive = [](const RunningProcess& process) { return process.alive(); };
  while (std::any_of(ending.begin(), ending.end(), alive) || daemons.hydrantd() || daemons.fetchd()) {
    if (deadline.passed()) return give_up({ExitStatus::kTooSlow, "the daemons under " + daemons.root + " still run"});
    ::poll(nullptr, 0, 10);
  }
  // hydrant-fetchd cannot: the directory is root's. One that starts just now has the lock before it makes them.
  auto lock = open_file(daemons.run_dir() + "/fetchd.lock", O_RDWR);
  if (lock && ::flock(lock->get(), LOCK_EX | LOCK_NB) == 0)
    for (const std::string& path : {daemons.fetchd_socket(), daemons.run_dir() + "/fetchd.pid"}) ::unlink(path.c_str());
  return {};
}

Outcome run_engine(const CommonOptions& common, const EngineOptions& options) {
  Daemons daemons{common.root, common.socket};
  auto hydrantd = daemons.hydrantd();
  if (!hydrantd) return give_up(explain_absence(daemons, std::move(hydrantd).error()));
  auto engine = hydrantd->call<proto::EngineReply>(
      HydrantdRequest(proto::EngineRequest{.trace = options.trace, .cookies = options.cookies}));
  if (!engine) return give_up(std::move(engine).error());
  render_engine(common.json, *engine);
  return {};
}

Outcome run_version(const CommonOptions& common) {
  Daemons daemons{common.root};
  DaemonVersion front{.name = "hydrantd"}, fetcher{.name = "hydrant-fetchd"};
  if (auto client = daemons.hydrantd()) {
    auto status = client->call<proto::StatusReply>(HydrantdRequest(proto::StatusRequest{}));
    if (status) front.status = *std::move(status);
  }
  if (auto client = daemons.fetchd()) {
    auto status = client->call<proto::StatusReply>(FetchdRequest(proto::StatusRequest{}));
    if (status) fetcher.status = *std::move(status);
  }
  render_version(common.json, {std::move(front), std::move(fetcher)});
  return {};
}

}  // namespace hydrant::cli
