// Where fetchd keeps its things, under the root that all parts share (docs/architecture.md).
#pragma once

#include <string>

#include "base/digest.h"
#include "proto/leaf_table.h"

namespace hydrant::fetch {

struct Paths {
  std::string root;

  std::string state() const { return root + "/fetch"; }
  std::string run() const { return root + "/run"; }
  std::string admin_socket() const { return run() + "/fetchd.sock"; }
  std::string lock_file() const { return run() + "/fetchd.lock"; }
  std::string pid_file() const { return run() + "/fetchd.pid"; }
  std::string channel_socket() const { return run() + "/channel.sock"; }
  std::string hydrantd_socket() const { return run() + "/hydrantd.sock"; }
  std::string catalogue() const { return root + "/fetch/catalogue.db"; }
  std::string credentials() const { return root + "/fetch/credentials.json"; }
  // Where an EROFS layer is kept while it streams by.
  std::string spool() const { return root + "/fetch"; }
  // Public keys, *.pem, whose signatures on pushed indexes are believed.
  std::string trusted_keys() const { return root + "/trust"; }
  // `name`: the layer's digest, or the device of one that is read by its table of contents or a pushed index.
  std::string index(const Digest& name) const { return index_directory(name) + "/" + name.hex() + ".hyx"; }
  std::string index_directory(const Digest& name) const { return root + "/fetch/indexes/" + name.hex().substr(0, 2); }
  // For hydrantd, which takes the leaves of what it is to check from there.
  std::string leaves(const Digest& root) const { return this->root + "/" + proto::leaf_table_name(root); }
  // Of the image with that manifest.
  std::string prefetch_directory() const { return root + "/fetch/prefetch"; }
  std::string prefetch_list(const Digest& manifest) const {
    return prefetch_directory() + "/" + manifest.hex() + ".json";
  }
  std::string metadata_directory() const { return root + "/fetch/meta"; }
  std::string metadata(const std::string& fsid) const { return metadata_directory() + "/" + fsid + ".erofs"; }
};

}  // namespace hydrant::fetch
