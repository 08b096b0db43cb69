// In-use marks (spec 8.3): one bit an inode, in memory. The kernel keeps it in the inode; here it is a set of numbers,
// so whoever marks keeps the inode from being reused: by a descriptor, or by holding a mark on the directory above.
#pragma once

#include <sys/stat.h>

#include <mutex>
#include <unordered_set>

namespace hydrant::cachefiles {

struct InodeId {
  dev_t device = 0;
  ino_t inode = 0;
  bool operator==(const InodeId&) const = default;
  static InodeId of(const struct stat& stat) { return {stat.st_dev, stat.st_ino}; }
};

// Thread-safe.
class InUse {
 public:
  // False when it is marked already.
  bool mark(InodeId id) {
    std::lock_guard lock(mutex_);
    return marks_.insert(id).second;
  }
  void unmark(InodeId id) {
    std::lock_guard lock(mutex_);
    marks_.erase(id);
  }
  bool marked(InodeId id) const {
    std::lock_guard lock(mutex_);
    return marks_.contains(id);
  }

 private:
  struct Hash {
    size_t operator()(const InodeId& id) const noexcept { return id.inode * 0x9E3779B97F4A7C15u ^ id.device; }
  };
  mutable std::mutex mutex_;
  std::unordered_set<InodeId, Hash> marks_;
};

}  // namespace hydrant::cachefiles
