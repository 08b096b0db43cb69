// record, replay, prefetch.
#include <filesystem>

#include "cli/daemons.h"
#include "cli/render.h"
#include "cli/source_argument.h"
#include "cli/verbs.h"

namespace hydrant::cli {
namespace {

using proto::FetchdRequest;
using proto::HydrantdRequest;

tl::unexpected<Failure> give_up(Failure failure) { return tl::unexpected<Failure>(std::move(failure)); }

// "usr/bin" for "/mnt/usr/bin" and "/usr/bin" alike, where the mount is /mnt.
std::string path_in(const std::string& mount, const std::string& path) {
  namespace fs = std::filesystem;
  std::string text = fs::path(path).is_absolute() ? path : (fs::current_path() / path).string();
  text = fs::path(text).lexically_normal().string();
  if (text == mount || text.starts_with(mount + "/")) text = text.substr(mount.size());
  while (text.ends_with('/')) text.pop_back();
  while (text.starts_with('/')) text.erase(0, 1);
  return text;
}

// Asks fetchd about the image that is mounted at options.dir.
template <class Ask>
Outcome ask_of_mount(const CommonOptions& common, const PrefetchOptions& options, Ask ask) {
  Daemons daemons{common.root};
  auto hydrantd = daemons.hydrantd();
  if (!hydrantd) return give_up(explain_absence(daemons, std::move(hydrantd).error()));
  auto stat =
      hydrantd->call<proto::StatMountReply>(HydrantdRequest(proto::StatMountRequest{.dir = resolve_dir(options.dir)}));
  if (!stat) return give_up(std::move(stat).error());
  auto fetchd = daemons.fetchd();
  if (!fetchd) return give_up(explain_absence(daemons, std::move(fetchd).error()));
  auto reply = fetchd->call<proto::PrefetchReply>(FetchdRequest(ask(*stat)));
  if (!reply) return give_up(std::move(reply).error());
  render_prefetch(common.json, stat->dir, *reply);
  return {};
}

}  // namespace

Outcome run_record(const CommonOptions& common, const PrefetchOptions& options) {
  return ask_of_mount(common, options,
                      [](const proto::StatMountReply& stat) { return proto::LearnRequest{.fsid = stat.fsid}; });
}

Outcome run_prefetch(const CommonOptions& common, const PrefetchOptions& options) {
  return ask_of_mount(common, options, [&](const proto::StatMountReply& stat) {
    proto::PrefetchRequest request{.fsid = stat.fsid};
    for (const std::string& path : options.paths) request.paths.push_back(path_in(stat.dir, path));
    return request;
  });
}

}  // namespace hydrant::cli
