// What a process of ours may do, as the kernel tells of the living one.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace hydrant::cli {

struct ProcessRights {
  std::string name;
  int64_t pid = 0;
  std::string user;  // its name, or its number where it has none
  // "all", "none", or names with commas. What it can use now, and what any program that it runs could ever gain.
  std::string capabilities;
  std::string bounding;
  bool no_new_privileges = false;
  std::string seccomp;  // off, strict or filter
  // No file of /proc tells these: the process does. 0: none.
  int64_t landlock = 0;
  std::vector<std::string> landlock_writes = {};
  // Where it has files open for writing: their directories, and devices by name. Sorted.
  std::vector<std::string> open_for_writing = {};
};

// Out of the text of /proc/PID/status: everything but name, pid and files.
ProcessRights parse_rights(std::string_view status);

// Nothing when there is no such process.
std::optional<ProcessRights> rights_of(const std::string& name, int64_t pid);

}  // namespace hydrant::cli
