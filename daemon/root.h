// The directory that holds everything: made, checked, and owned by one hydrantd at a time.
#pragma once

#include <string>

#include "base/error.h"
#include "base/fd.h"

namespace hydrant::daemon {

class Root {
 public:
  // Makes the directories. kUnsupported on a file system that cannot hold the cache (by trying: sparse files of
  // the nominal size and user xattrs; tmpfs, ramfs and overlayfs by name), kBusy when another hydrantd has it, kInvalid
  // for a relative path.
  static Result<Root> open(const std::string& path);

  // The same for an engine whose cache its user daemon will choose: any file system will do.
  static Result<Root> open_state(const std::string& path);

  const std::string& path() const { return path_; }
  // Whom the user daemon runs as: who owns its state. Root gives that away and nobody else can. 0 while there is none.
  uid_t user_daemon() const;

  std::string operator/(const std::string& name) const { return path_ + "/" + name; }

 private:
  Root(std::string path, Fd lock) : path_(std::move(path)), lock_(std::move(lock)) {}
  std::string path_;
  Fd lock_;  // flock of run/hydrantd.lock; ends with the process
};

}  // namespace hydrant::daemon
