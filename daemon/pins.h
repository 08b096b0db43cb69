// What is never culled: the objects of images that somebody has pinned. Each pin is a mount record without a mount
// (docs/formats/mount-record.md), named by its source.
#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <vector>

#include "base/error.h"
#include "daemon/mount_record.h"
#include "daemon/objects.h"

namespace hydrant::daemon {

// The volume that the objects of a mount are in.
std::string volume_of(const proto::MountRequest& request);

// Thread-safe.
class Pins {
 public:
  // `directory` is <root>/pins; made by the first pin.
  explicit Pins(std::string directory);

  // Durable when it returns. In place of an earlier pin of the same source.
  Result<> add(const proto::MountRequest& request);
  // kNotFound.
  Result<> remove(const std::string& source);

  bool hold(const ObjectKey& key) const;
  // A file of the cache: the volume's directory and its own name.
  bool hold_file(const std::string& volume_directory, const std::string& name) const;
  std::vector<std::string> sources() const;

 private:
  using Names = std::set<std::string>;  // "<volume directory>/<file name>"
  const std::string directory_;
  mutable std::mutex mutex_;  // held across the disk by who changes something
  std::map<std::string, Names> by_source_;
};

}  // namespace hydrant::daemon
