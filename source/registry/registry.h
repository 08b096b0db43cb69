// Images in a registry (OCI distribution-spec 1.1, the v2 API).
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "proto/reference.h"
#include "source/auth/docker_config.h"
#include "source/hosts/host_directory.h"
#include "source/http/http_client.h"
#include "source/source.h"

namespace hydrant::source {

class Health;
class RegistryAuth;

struct RegistryOptions {
  std::optional<bool> plain_http;  // nothing: plain HTTP for loopback hosts alone
  DockerConfig credentials;
  std::shared_ptr<const HostDirectory> hosts = nullptr;  // null: the registry itself is asked, and nobody else
  const Clock* clock = &Clock::system();                 // of token expiry
};

// One repository of one registry, asked for where the operator says (mirrors in their order, the registry last).
// Thread-safe.
class RegistryStore final : public ImageStore {
 public:
  // Asks nobody.
  RegistryStore(std::shared_ptr<HttpClient> client, proto::ImageName image, RegistryOptions options = {});
  ~RegistryStore() override;

  // Unknown image: kNotFound; missing or wrong credentials: kUnauthorized; 403: kDenied; nobody there: kUnreachable; an
  // answer that no registry gives: kUnsupported. The message names image or registry and the way out.
  Result<StoredManifest> manifest(const std::string& reference, Deadline deadline) override;
  // Asks nobody: a missing blob or a wrong size shows at the first read. It keeps to the places that there are now.
  Result<std::shared_ptr<Blob>> blob(const Digest& digest, uint64_t size, Deadline deadline) override;
  std::string describe() const override;

 private:
  struct Place;
  struct Places;

  // As described now; the same ones as long as that stays the same.
  Result<std::shared_ptr<const Places>> places();
  Place make_place(const RegistryPlace& described, bool own) const;
  std::string url(const Place& place, const std::string& tail) const;
  Result<StoredManifest> manifest_at(const Place& place, const std::string& reference, const std::string& name,
                                     const std::optional<Digest>& wanted, Deadline deadline);

  const std::shared_ptr<HttpClient> client_;  // shared with every other source of the daemon
  const proto::ImageName image_;
  const RegistryOptions options_;
  Guarded<std::shared_ptr<const Places>> places_;  // shared with requests under way
};

}  // namespace hydrant::source
