// What is mounted in our mount namespace, by /proc/self/mountinfo (proc(5)).
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"

namespace hydrant {

struct MountInfo {
  uint64_t id = 0;
  std::string device;  // "major:minor" of the super block
  std::string path;    // where it stands, seen from our root
  std::string type;    // "erofs", "fuse.<subtype>"
  std::string source;
};

// In the order of mounting: of several entries with one path, the last is on top.
Result<std::vector<MountInfo>> read_mounts();

// The text of mountinfo. Lines that are not of that form are left out.
std::vector<MountInfo> parse_mountinfo(std::string_view text);

// The mount on top at `path`, or nothing.
const MountInfo* find_mount(const std::vector<MountInfo>& mounts, std::string_view path);

}  // namespace hydrant
