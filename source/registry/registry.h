// Images in a registry (OCI distribution-spec 1.1, the v2 API).
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "proto/reference.h"
#include "source/auth/docker_config.h"
#include "source/http/http_client.h"
#include "source/source.h"

namespace hydrant::source {

class RegistryAuth;

struct RegistryOptions {
  std::optional<bool> plain_http;  // nothing: plain HTTP for loopback hosts alone
  DockerConfig credentials;
  const Clock* clock = &Clock::system();  // of token expiry
};

// One repository of one registry. Thread-safe.
class RegistryStore final : public ImageStore {
 public:
  // Asks nobody.
  RegistryStore(std::shared_ptr<HttpClient> client, proto::ImageName image, RegistryOptions options = {});
  ~RegistryStore() override;

  // Unknown image: kNotFound; missing or wrong credentials: kUnauthorized; 403: kDenied; nobody there: kUnreachable; an
  // answer that no registry gives: kUnsupported. The message names image or registry and the way out.
  Result<StoredManifest> manifest(const std::string& reference, Deadline deadline) override;
  // Asks nobody: a missing blob or a wrong size shows at the first read.
  Result<std::shared_ptr<Blob>> blob(const Digest& digest, uint64_t size, Deadline deadline) override;
  std::string describe() const override;

 private:
  std::string url(const std::string& tail) const;

  const std::shared_ptr<HttpClient> client_;  // shared with every other source of the daemon
  const proto::ImageName image_;
  const std::string base_url_;
  const std::shared_ptr<RegistryAuth> auth_;  // also held by the blobs, which may outlive the store
};

}  // namespace hydrant::source
