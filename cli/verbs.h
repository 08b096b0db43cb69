// What each verb does. Results go to standard output, progress to a terminal's standard error; a Failure is printed
// once, by main.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "base/clock.h"
#include "cli/exit_status.h"

namespace hydrant::cli {

using Outcome = tl::expected<void, Failure>;

struct CommonOptions {
  std::string root = "/var/lib/hydrant";
  std::string socket = {};  // the engine's, where it is not the root's
  bool json = false;
};

struct MountOptions {
  // SOURCE DIR, or DIR alone with `fsid`.
  std::vector<std::string> arguments = {};
  std::string as = "auto";
  std::string platform = {};
  bool plain_http = false;
  bool no_start = false;
  std::string fsid = {};
  std::vector<std::string> devices = {};
  std::string domain_id = {};
  uint32_t read_ahead_kb = 0;  // 0: hydrantd's default
  std::string front = "auto";
  bool no_prefetch = false;
  bool background = false;
  bool pin = false;
  double timeout_s = 0;  // 0: none; a silent daemon is given up on all the same
  std::string trust = "strict";
};

struct IndexOptions {
  std::string source = {};
  std::string as = "auto";
  std::string platform = {};
  bool plain_http = false;
  bool no_start = false;
  double timeout_s = 0;
  bool push = false;
  std::string sign_key = {};    // path
  std::string convert_to = {};  // of convert: DEST
};

struct UmountOptions {
  std::string dir = {};
  bool lazy = false;
  double timeout_s = 2;
};

// record, replay, prefetch: of the mount at `dir`.
struct PrefetchOptions {
  std::string dir = {};
  std::vector<std::string> paths = {};  // inside the mount, or from the image's root
};

struct GcOptions {
  std::optional<uint64_t> at_most = {};  // bytes
  std::string unpin = {};                // SOURCE
};

struct DoctorOptions {
  bool repair = false;
};

struct EngineOptions {
  std::optional<std::string> trace = {};
  uint64_t cookies = 1000;
};

struct StopOptions {
  double timeout_s = 20;
};

struct ExecOptions {
  std::string socket = {};  // of the engine; empty: one of its own
  std::vector<std::string> program = {};
};

Outcome run_mount(const CommonOptions& common, const MountOptions& options);
Outcome run_index(const CommonOptions& common, const IndexOptions& options);
Outcome run_umount(const CommonOptions& common, const UmountOptions& options);
Outcome run_ls(const CommonOptions& common);
Outcome run_stat(const CommonOptions& common, const std::string& dir);
// Keeps what was read since the mount as the image's prefetch list.
Outcome run_record(const CommonOptions& common, const PrefetchOptions& options);
// Fetches ahead what `paths` name; without any, what the image's prefetch list names.
Outcome run_prefetch(const CommonOptions& common, const PrefetchOptions& options);
// Makes room in the cache, and tells how much is used.
Outcome run_gc(const CommonOptions& common, const GcOptions& options);
// Looks at the machine, the daemons, the cache and the mounts, and tells what is wrong and the way out. With `repair`,
// starts daemons that do not run and makes dead mounts anew.
Outcome run_doctor(const CommonOptions& common, const DoctorOptions& options);
// Replaces the daemons by those that stand beside this program, under running mounts.
Outcome run_upgrade(const CommonOptions& common);
Outcome run_stop(const CommonOptions& common, const StopOptions& options);
Outcome run_engine(const CommonOptions& common, const EngineOptions& options);
Outcome run_version(const CommonOptions& common);
// Becomes the program; returns only when it could not.
Outcome run_cachefiles_exec(const ExecOptions& options);

}  // namespace hydrant::cli
