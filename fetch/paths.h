// Where fetchd keeps its things, under the root that all parts share (docs/architecture.md).
#pragma once

#include <string>

#include "base/digest.h"

namespace hydrant::fetch {

struct Paths {
  std::string root;

  std::string run() const { return root + "/run"; }
  std::string admin_socket() const { return run() + "/fetchd.sock"; }
  std::string lock_file() const { return run() + "/fetchd.lock"; }
  std::string pid_file() const { return run() + "/fetchd.pid"; }
  std::string channel_socket() const { return run() + "/channel.sock"; }
  std::string hydrantd_socket() const { return run() + "/hydrantd.sock"; }
  std::string catalogue() const { return root + "/fetch/catalogue.db"; }
  std::string credentials() const { return root + "/fetch/credentials.json"; }
  std::string index(const Digest& layer) const {
    std::string hex = layer.hex();
    return index_directory(layer) + "/" + hex + ".hyx";
  }
  std::string index_directory(const Digest& layer) const { return root + "/fetch/indexes/" + layer.hex().substr(0, 2); }
  // Of the image with that manifest.
  std::string prefetch_directory() const { return root + "/fetch/prefetch"; }
  std::string prefetch_list(const Digest& manifest) const {
    return prefetch_directory() + "/" + manifest.hex() + ".json";
  }
  std::string metadata_directory() const { return root + "/fetch/meta"; }
  std::string metadata(const std::string& fsid) const { return metadata_directory() + "/" + fsid + ".erofs"; }
};

}  // namespace hydrant::fetch
