// The credentials that prepare requests brought along, kept so that a restarted daemon can still fetch.
#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>

#include "base/error.h"
#include "source/auth/docker_config.h"

namespace hydrant::fetch {

// One docker config.json for each registry, the latest that was given for it, in a file only its owner reads. No text
// of it ever reaches a log or a message. Thread-safe.
class CredentialStore {
 public:
  // A missing file is an empty store. A file that cannot be understood is kCorrupt.
  static Result<std::unique_ptr<CredentialStore>> open(std::string path);

  // Remembers `docker_config` (config.json's text) for `registry`. True when it differs from what was known.
  Result<bool> put(const std::string& registry, const std::string& docker_config);
  // Empty when nothing was given.
  Result<source::DockerConfig> find(const std::string& registry) const;

 private:
  explicit CredentialStore(std::string path) : path_(std::move(path)) {}
  const std::string path_;
  mutable std::mutex mutex_;
  std::map<std::string, std::string> configs_;
};

}  // namespace hydrant::fetch
