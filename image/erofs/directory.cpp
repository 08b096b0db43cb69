#include "image/erofs/directory.h"

#include <algorithm>

#include "proto/erofs_layout.h"

namespace hydrant::image {
namespace {

using proto::erofs::Dirent;
using proto::erofs::kBlockSize;

// The format numbers types as FileType does.
uint8_t dirent_type(const TreeInode& inode) {
  return static_cast<uint8_t>(inode.entry ? inode.entry->type : FileType::kDirectory);
}

}  // namespace

void DirectoryBlocks::load(const Tree& tree, InodeIndex directory) {
  const TreeInode& inode = tree.inodes[directory];
  auto children = tree.children(inode);
  names_.assign(children.begin(), children.end());
  auto insert = [&](TreeName dots) {
    auto less = [](const TreeName& a, const TreeName& b) { return a.name < b.name; };
    names_.insert(std::lower_bound(names_.begin(), names_.end(), dots, less), dots);
  };
  insert({".", directory});
  insert({"..", inode.parent});

  block_starts_.clear();
  uint64_t used = kBlockSize;  // of the current block
  for (uint32_t i = 0; i < names_.size(); ++i) {
    uint64_t need = sizeof(Dirent) + names_[i].name.size();
    if (used + need > kBlockSize) {
      block_starts_.push_back(i);
      used = 0;
    }
    used += need;
  }
  size_ = (block_starts_.size() - 1) * kBlockSize + used;
}

void DirectoryBlocks::write(const Tree& tree, const std::vector<uint32_t>& nids, MutableBytes out) const {
  for (size_t block = 0; block < block_starts_.size(); ++block) {
    size_t begin = block_starts_[block];
    size_t end = block + 1 < block_starts_.size() ? block_starts_[block + 1] : names_.size();
    MutableBytes bytes = out.subspan(block * kBlockSize);
    size_t name_at = (end - begin) * sizeof(Dirent);
    for (size_t i = begin; i < end; ++i) {
      const TreeName& name = names_[i];
      Dirent dirent{.nid = nids[name.inode],
                    .name_at = static_cast<uint16_t>(name_at),
                    .type = dirent_type(tree.inodes[name.inode])};
      std::memcpy(bytes.data() + (i - begin) * sizeof dirent, &dirent, sizeof dirent);
      std::memcpy(bytes.data() + name_at, name.name.data(), name.name.size());
      name_at += name.name.size();
    }
  }
}

}  // namespace hydrant::image
