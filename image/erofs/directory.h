// Directories as EROFS stores them: blocks of dirents and names, sorted over the whole directory.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "base/bytes.h"
#include "image/tree/merge.h"

namespace hydrant::image {

// One directory's names with "." and ".." at their places, cut into blocks. Reused from directory to directory.
class DirectoryBlocks {
 public:
  void load(const Tree& tree, InodeIndex directory);

  uint64_t size() const { return size_; }  // whole blocks and the used bytes of the last one
  // `out` is size() bytes of zeros. `nids` says where each inode was placed.
  void write(const Tree& tree, const std::vector<uint32_t>& nids, MutableBytes out) const;

 private:
  std::vector<TreeName> names_;
  std::vector<uint32_t> block_starts_;  // index into names_ of each block's first
  uint64_t size_ = 0;
};

}  // namespace hydrant::image
