// The cache directory of a script, empty at its start. Volumes stay, as making their 256 directories costs most.
#pragma once

#include <string>
#include <utility>
#include <vector>

namespace hydrant::oracle {

// The disk that both sides see: the guest's is made so (see guest.py), the engine is told.
inline constexpr unsigned long kDiskBlocks = 15380;
inline constexpr unsigned long kDiskFiles = 16000;

void empty_root(const std::string& root);
// Where the objects of EROFS mounts are, if they are: "<volume>/<object>" and its path.
std::vector<std::pair<std::string, std::string>> object_paths(const std::string& root);

}  // namespace hydrant::oracle
