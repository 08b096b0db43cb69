// Results as people and programs read them. With `json` one object goes to standard output, and nothing else.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "base/clock.h"
#include "cli/process_rights.h"
#include "proto/admin.h"

namespace hydrant::cli {

struct MountTimes {
  Duration prepare{};
  Duration mount{};
};

void render_mount(bool json, const proto::MountRequest& request, const MountTimes& times);
void render_index(bool json, const proto::PrepareReply& image);
void render_list(bool json, const proto::ListReply& list);
void render_engine(bool json, const proto::EngineReply& engine);
// `fetched` is missing when hydrant-fetchd does not answer, or (not `ours`) has nothing to do with the engine; `image`
// when the mount was made by --fsid.
void render_stat(bool json, const proto::StatMountReply& stat, const std::optional<proto::ImageFacts>& image,
                 const std::optional<proto::StatImageReply>& fetched, bool ours);

// What a prefetch list, or paths, come to.
void render_prefetch(bool json, const std::string& what, const proto::PrefetchReply& reply);

// One thing that was looked at.
struct Check {
  std::string name;  // daemon.hydrantd, mount./mnt/app
  bool good = true;
  std::string what;
  std::string way_out = {};  // where it is not
};
void render_doctor(bool json, const std::vector<Check>& checks, const std::vector<ProcessRights>& processes);

void render_gc(bool json, const proto::GcReply& reply);

struct DaemonVersion {
  std::string name;
  std::optional<proto::StatusReply> status = {};  // missing: it does not run, or does not answer
};
void render_version(bool json, const std::vector<DaemonVersion>& daemons);

}  // namespace hydrant::cli
