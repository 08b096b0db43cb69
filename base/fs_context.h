// Mounting by fsopen/fsconfig/fsmount/move_mount: options without mount(2)'s one-page limit, and the kernel's own words
// when it refuses.
#pragma once

#include <string>

#include "base/error.h"
#include "base/fd.h"

namespace hydrant {

// A file system that is being configured. Nothing is visible to anybody until `attach`. Owned by one thread.
class FsContext {
 public:
  // kUnsupported when the kernel has no such file system type, kDenied without CAP_SYS_ADMIN.
  static Result<FsContext> open(const std::string& type);

  // `value` is at most 255 bytes: the kernel's limit.
  Result<> set(const std::string& key, const std::string& value);
  Result<> set_flag(const std::string& key);

  // Makes the super block, then a mount of it that stands nowhere yet. The descriptor is O_PATH and keeps the mount
  // alive until it is attached. `attributes` are MOUNT_ATTR_*.
  Result<Fd> create(unsigned attributes);

 private:
  FsContext(std::string type, Fd fd) : type_(std::move(type)), fd_(std::move(fd)) {}
  Error refused(int err, const std::string& step);

  std::string type_;
  Fd fd_;
};

// One file of a mount that stands nowhere yet, as a mount of its own; `name` is in its root. kUnsupported before
// Linux 6.15.
Result<Fd> mount_of_file(const Fd& mount, const std::string& name);

// Puts a mount on `target` (O_PATH is enough): a directory, or of mount_of_file() a file.
Result<> attach_mount(const Fd& mount, const Fd& target);

}  // namespace hydrant
