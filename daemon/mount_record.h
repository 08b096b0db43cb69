// What survives of a mount when hydrantd dies: one JSON file a mount, docs/formats/mount-record.md.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "proto/admin.h"

namespace hydrant::daemon {

struct MountRecord {
  proto::MountRequest request;        // as it was asked for, `dir` resolved
  std::string device;                 // "major:minor" of the mount
  std::string boot_id;                // device numbers mean nothing after a reboot
  int64_t mounted_at = 0;             // seconds since 1970
  std::vector<uint64_t> marked = {};  // inodes of backing files that the kernel reads under a fanotify mark
};

std::string encode(const MountRecord& record);
// kCorrupt for anything but a record of a version we know.
Result<MountRecord> decode_mount_record(std::string_view text);

// `directory` is <root>/mounts.
std::string record_path(const std::string& directory, const std::string& mount_point);
Result<> save_record(const std::string& directory, const MountRecord& record);
void delete_record(const std::string& directory, const std::string& mount_point);
// Files that are no records stay and are logged.
std::vector<MountRecord> load_records(const std::string& directory);

}  // namespace hydrant::daemon
