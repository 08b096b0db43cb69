// Merges the file tables of an image's layers into the one tree that the EROFS metadata describes.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "image/file_table.h"

namespace hydrant::image {

using InodeIndex = uint32_t;

struct TreeName {
  std::string_view name;
  InodeIndex inode = 0;
};

struct TreeInode {
  const FileEntry* entry = nullptr;  // nothing for a directory that no layer lists: 0755, root:root, time 0
  uint32_t layer = 0;                // that `entry` and its data pieces come from, 0 = bottom
  uint32_t nlink = 0;                // names of it; 2 + subdirectories for a directory
  InodeIndex parent = 0;             // of a directory; the root is its own
  uint32_t first_name = 0;           // a directory's children are names[first_name, first_name + name_count)
  uint32_t name_count = 0;

  bool is_directory() const { return !entry || entry->type == FileType::kDirectory; }
};

// Inode 0 is the root; the others stand breadth-first, so the children of a directory stand together. Names of one
// directory are sorted as unsigned bytes. Points into the tables it was made of: they must outlive it and stay as they
// are.
struct Tree {
  std::vector<TreeInode> inodes;
  std::vector<TreeName> names;

  std::span<const TreeName> children(const TreeInode& directory) const {
    return std::span(names).subspan(directory.first_name, directory.name_count);
  }
};

// Applies the layers from the bottom to the top:
// 1. All whiteouts and opaque marks of a layer act on the tree of the layers below it, never on the layer itself.
// 2. Its other entries follow in tar order. A directory over a directory brings its own attributes and keeps the
//    children; anything else replaces what has its name, with all below it. Twice the same path in one layer: so too,
//    the last one wins.
// 3. A hard link names what its target path is at that point of its own layer, else what the layer has there later,
//    else what lower layers have. Links to links are followed; cycles, missing targets and directories are refused.
// 4. The directories of an entry's path (of a whiteout's and of a hard link's target too) are looked for as a container
//    engine does that unpacks one entry after the other: a symbolic link that stands there at that point leads on,
//    inside the image ("/" is its root, ".." stops there), 40 of them at most. The last name is never followed.
// 5. Directories that no layer lists come into being with the entries below them. An entry below a name that is neither
//    directory nor link, in its own layer or (unless its layer lists the directory) in a lower one, is refused as
//    tar(1) refuses it: hiding the file would show another tree than the layer's author saw.
// Refusals are kCorrupt and name the layer (from 0) and the path. Time and memory are proportional to the entries and
// the components of their paths, whatever their names or depth; symbolic links that are followed count with their
// targets, and are kUnsupported past 256 MiB of those.
Result<Tree> merge(std::span<const FileTable* const> layers_bottom_up);

}  // namespace hydrant::image
