// Extended attributes as EROFS stores them: beside the inode, or once for all inodes that have the same.
#pragma once

#include <cstdint>
#include <map>
#include <string_view>
#include <utility>

#include "base/bytes.h"
#include "base/error.h"
#include "image/file_table.h"

namespace hydrant::image {

// Sees every inode's attributes once (`count`), then lays the shared ones out (`share`), then writes bodies. Keeps
// views of the names and values.
class XattrPool {
 public:
  // kUnsupported past the format's sizes. Attributes whose prefix has no number in the format are left out and counted.
  Result<> count(const FileEntry& file);
  // Those used at least three times become shared, in the order of their names and values.
  void share();

  // The bytes behind the inode; 0 without attributes. kUnsupported when they are more than an inode can have.
  Result<uint64_t> body_size(const FileEntry& file) const;
  void write_body(const FileEntry& file, MutableBytes out) const;

  Bytes shared() const { return shared_; }  // the region that the superblock's xattr_block points to
  uint64_t dropped() const { return dropped_; }

 private:
  using Key = std::pair<std::string_view, std::string_view>;
  struct Use {
    uint64_t count = 0;
    uint32_t id = 0;
    bool shared = false;
  };

  const Use* find(const Xattr& xattr) const;

  std::map<Key, Use> uses_;
  Buffer shared_;
  uint64_t dropped_ = 0;
};

}  // namespace hydrant::image
