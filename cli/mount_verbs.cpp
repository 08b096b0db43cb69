// mount, index, umount.
#include <fmt/format.h>
#include <sys/stat.h>

#include <ctime>
#include <filesystem>

#include "base/file.h"
#include "cli/daemons.h"
#include "cli/progress_bar.h"
#include "cli/render.h"
#include "cli/source_argument.h"
#include "cli/verbs.h"
#include "proto/reference.h"

namespace hydrant::cli {
namespace {

using proto::FetchdRequest;
using proto::HydrantdRequest;
using std::chrono::seconds;

// A daemon that says nothing for this long is stuck: it reports progress at least every few seconds.
constexpr auto kSilence = seconds(60);
constexpr size_t kMaxKey = 64 << 10;

Patience patience_of(double timeout_s, Duration silence = kSilence) {
  Patience patience{.silence = silence};
  if (timeout_s > 0)
    patience.total = Deadline::after(std::chrono::duration_cast<Duration>(std::chrono::duration<double>(timeout_s)));
  return patience;
}

tl::unexpected<Failure> give_up(Failure failure) { return tl::unexpected<Failure>(std::move(failure)); }

enum class MountPoint { kDirectory, kFile };

// Ahead of the work, so that a typing error does not cost a download. hydrantd checks again.
tl::expected<MountPoint, Failure> check_mount_point(const std::string& dir) {
  struct stat status {};
  if (::stat(dir.c_str(), &status)) {
    int err = errno;
    if (err == ENOENT) return give_up({ExitStatus::kNotFound, dir + ": no such directory; make it first (mkdir -p)"});
    return give_up(sys_error(err, dir));
  }
  if (S_ISDIR(status.st_mode)) return MountPoint::kDirectory;
  if (S_ISREG(status.st_mode)) return MountPoint::kFile;
  return give_up({ExitStatus::kUsage, dir + ": neither a directory nor a file"});
}

Outcome check_text(const std::string& text, const char* what) {
  // The protocol is JSON: other bytes would arrive changed.
  if (!proto::is_utf8(text)) return give_up({ExitStatus::kUsage, std::string(what) + " is not UTF-8 text"});
  return {};
}

tl::expected<proto::PrepareReply, Failure> prepare(const Daemons& daemons, proto::PrepareRequest request,
                                                   const Patience& patience) {
  if (auto ok = check_text(request.source, "SOURCE"); !ok) return give_up(ok.error());
  request.source = proto::absolute_source(request.source, std::filesystem::current_path().string());
  auto config = read_docker_config();
  if (!config) return give_up(std::move(config).error());
  request.docker_config = *std::move(config);
  auto fetchd = daemons.fetchd();
  if (!fetchd) return give_up(explain_absence(daemons, std::move(fetchd).error()));
  ProgressBar bar(true);
  auto reply = fetchd->call<proto::PrepareReply>(FetchdRequest(std::move(request)), patience,
                                                 [&](const proto::Progress& progress) { bar.show(progress); });
  if (!reply) return give_up(std::move(reply).error());
  return *std::move(reply);
}

Outcome ensure_daemons(const Daemons& daemons, bool no_start) {
  if (!no_start) return daemons.ensure_running();
  if (auto ready = daemons.check_ready(); !ready) return give_up(explain_absence(daemons, std::move(ready).error()));
  return {};
}

// For objects of whatever user daemon there is: one of another make must not be joined by hydrant-fetchd.
Outcome ensure_engine(const Daemons& daemons, bool no_start) {
  auto hydrantd = daemons.hydrantd();
  if (!hydrantd) {
    if (daemons.engine.empty()) return ensure_daemons(daemons, no_start);
    return give_up(explain_absence(daemons, std::move(hydrantd).error()));
  }
  auto status = hydrantd->call<proto::StatusReply>(HydrantdRequest(proto::StatusRequest{}));
  if (!status) return give_up(std::move(status).error());
  if (status->attached) return {};
  return give_up({ExitStatus::kNoDaemon, "no user daemon is attached to the engine at " + daemons.hydrantd_socket()});
}

// What cannot be a single file, as far as that can be told without asking anybody.
bool is_tree(const MountOptions& options) {
  auto source = proto::SourceReference::parse(options.arguments.front());
  return (options.as != "auto" && options.as != "file") ||
         (source && (source->kind == proto::SourceKind::kRegistry || source->kind == proto::SourceKind::kOciDir));
}

}  // namespace

Outcome run_mount(const CommonOptions& common, const MountOptions& options) {
  bool by_id = !options.fsid.empty();
  if (options.arguments.size() != (by_id ? 1u : 2u)) {
    return give_up({ExitStatus::kUsage, by_id ? "mount --fsid takes one argument, DIR" : "mount takes SOURCE and DIR"});
  }
  std::string dir = resolve_dir(options.arguments.back());
  if (auto ok = check_text(dir, "DIR"); !ok) return ok;
  auto target = check_mount_point(dir);
  if (!target) return give_up(std::move(target).error());
  const Failure no_directory{ExitStatus::kUsage,
                             dir + ": not a directory; on a file only a single file can be mounted"};
  if (*target == MountPoint::kFile && (by_id || is_tree(options))) return give_up(no_directory);
  Daemons daemons{common.root, common.socket};
  if (auto ok = by_id ? ensure_engine(daemons, options.no_start) : ensure_daemons(daemons, options.no_start); !ok)
    return ok;
  Patience patience = patience_of(options.timeout_s);

  // A directory that is in use is refused before anything is fetched.
  auto hydrantd = daemons.hydrantd();
  if (!hydrantd) return give_up(explain_absence(daemons, std::move(hydrantd).error()));
  auto list = hydrantd->call<proto::ListReply>(HydrantdRequest(proto::ListRequest{}));
  if (!list) return give_up(std::move(list).error());
  for (const auto& mount : list->mounts) {
    if (mount.dir == dir) {
      return give_up({ExitStatus::kBusy,
                      fmt::format("{}: {} is mounted there; `hydrant umount {}` first", dir, mount.source, dir)});
    }
  }

  proto::MountRequest request{
      .dir = dir, .read_ahead_kb = options.read_ahead_kb, .pin = options.pin, .front = options.front};
  Instant start = Clock::system().now();
  if (by_id) {
    request.fsid = options.fsid;
    request.devices = options.devices;
    request.domain_id = options.domain_id;
    request.source = "fsid " + options.fsid;
  } else {
    auto image = prepare(daemons,
                         {.source = options.arguments.front(),
                          .as = options.as,
                          .platform = options.platform,
                          .plain_http = options.plain_http ? std::optional(true) : std::nullopt,
                          .trust = options.trust,
                          .background = options.background,
                          .prefetch = !options.no_prefetch},
                         patience);
    if (!image) return give_up(std::move(image).error());
    if (*target == MountPoint::kFile && image->file.empty()) return give_up(no_directory);
    if (*target == MountPoint::kFile) request.file = image->file;
    request.fsid = image->fsid;
    request.devices = image->devices;
    request.proofs = image->proofs;
    request.domain_id = image->domain_id;
    request.meta_digest = image->meta_digest;
    request.source = image->source;
    request.image = proto::to_text(image->image);
  }
  Instant prepared = Clock::system().now();
  auto reply = hydrantd->call<proto::MountReply>(HydrantdRequest(request), patience);
  if (!reply) return give_up(std::move(reply).error());
  render_mount(common.json, request, {.prepare = prepared - start, .mount = Clock::system().now() - prepared});
  return {};
}

Outcome run_index(const CommonOptions& common, const IndexOptions& options) {
  Daemons daemons{common.root};
  std::string key;
  if (!options.sign_key.empty()) {
    auto text = read_file(options.sign_key, kMaxKey);
    if (!text) return give_up(std::move(text).error());
    if (auto ok = check_text(*text, options.sign_key.c_str()); !ok) return ok;
    key = *std::move(text);
  }
  if (auto ok = ensure_daemons(daemons, options.no_start); !ok) return ok;
  auto image = prepare(daemons,
                       {.source = options.source,
                        .as = options.as,
                        .platform = options.platform,
                        .plain_http = options.plain_http ? std::optional(true) : std::nullopt,
                        .index_only = true,
                        .push = options.push,
                        .convert_to = options.convert_to,
                        .sign_key = key},
                       patience_of(options.timeout_s));
  if (!image) return give_up(std::move(image).error());
  render_index(common.json, *image);
  return {};
}

namespace {

// hydrantd notes what a mount reads in its first two minutes.
constexpr int64_t kWatched = 120;

// fetchd looks at a start some seconds after its mount; of one that is over before, or goes on after that, it learns
// here. Best effort: a daemon that is stuck costs a moment, and no connection that somebody else uses.
void learn_before_end(const Daemons& daemons, const std::string& dir) {
  auto hydrantd = daemons.hydrantd();
  if (!hydrantd) return;
  auto stat = hydrantd->call<proto::StatMountReply>(HydrantdRequest(proto::StatMountRequest{.dir = dir}),
                                                    {.total = Deadline::after(std::chrono::milliseconds(300))});
  if (!stat || ::time(nullptr) - stat->mounted_at > kWatched) return;
  auto facts = proto::parse_image_facts(stat->image);
  if (!facts || !facts->prefetch || facts->form != "image") return;
  if (auto fetchd = daemons.fetchd())
    (void)fetchd->call<proto::PrefetchReply>(FetchdRequest(proto::LearnRequest{.fsid = stat->fsid}),
                                             {.total = Deadline::after(seconds(1))});
}

}  // namespace

Outcome run_umount(const CommonOptions& common, const UmountOptions& options) {
  std::string dir = resolve_dir(options.dir);
  if (auto ok = check_text(dir, "DIR"); !ok) return ok;
  Daemons daemons{common.root, common.socket};
  auto hydrantd = daemons.hydrantd();
  if (!hydrantd) return give_up(explain_absence(daemons, std::move(hydrantd).error()));
  if (common.socket.empty()) learn_before_end(daemons, dir);
  Patience patience = patience_of(options.timeout_s);
  auto reply = hydrantd->call<proto::EmptyReply>(
      HydrantdRequest(proto::UmountRequest{.dir = dir, .lazy = options.lazy}), patience);
  if (!reply) return give_up(std::move(reply).error());
  return {};
}

}  // namespace hydrant::cli
