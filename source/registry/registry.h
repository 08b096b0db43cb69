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

  // By the referrers API of whoever has one and knows any, or else the fallback tag (OCI distribution-spec 1.1).
  Result<std::vector<proto::Descriptor>> referrers(const Digest& subject, std::string_view artifact_type,
                                                   Deadline deadline) override;
  // Publishing is the registry's own business: no mirror is asked. In one request after the one that begins the upload;
  // refusals as for manifest().
  Result<> put_blob(const Digest& digest, Blob& content, Deadline deadline) override;
  Result<> put_manifest(const std::string& reference, const std::string& media_type, std::string body,
                        Deadline deadline) override;
  // kBusy when others keep changing the fallback tag at the same time.
  Result<> put_referrer(const Digest& subject, const proto::Descriptor& self, std::string body,
                        Deadline deadline) override;

 private:
  // Where the repository can be asked for.
  struct Place {
    std::string url;    // "https://mirror.example/v2"
    std::string query;  // "?ns=docker.io": tells a mirror whose content is meant; empty for the registry itself
    bool pull, resolve;
    bool own;
    std::shared_ptr<const HostOptions> host;
    std::shared_ptr<RegistryAuth> auth;  // also held by blobs, which may outlive the store
    std::shared_ptr<Health> health;      // as above
  };
  struct Places {
    std::shared_ptr<const RegistryPlaces> described;  // what they were made of; null without a description
    std::vector<Place> all;                           // in the order to ask; the registry itself is the last
    const Place& own() const { return all.back(); }
  };

  // As described now; the same ones as long as that stays the same.
  Result<std::shared_ptr<const Places>> places();
  Place make_place(const RegistryPlace& described, bool own) const;
  std::string url(const Place& place, const std::string& tail) const;
  Result<StoredManifest> manifest_at(const Place& place, const std::string& reference, const std::string& name,
                                     const std::optional<Digest>& wanted, Deadline deadline);
  HttpRequest request_of(const Place& place, std::string method, std::string url, Deadline deadline) const;
  Result<std::optional<HttpClient::Document>> referrers_page(const Place& place, const std::string& url,
                                                             Deadline deadline);
  Result<std::optional<std::vector<proto::Descriptor>>> referrers_at(const Place& place, const Digest& subject,
                                                                     std::string_view artifact_type, Deadline deadline);
  Result<HttpHead> put_any_manifest(const Place& place, const std::string& reference, const std::string& media_type,
                                    std::string body, std::vector<std::string> headers, Deadline deadline);
  Result<> list_in_tag(const Place& place, const Digest& subject, const proto::Descriptor& self, Deadline deadline);
  Error push_error(const Place& place, const HttpHead& head, const std::string& what) const;

  const std::shared_ptr<HttpClient> client_;  // shared with every other source of the daemon
  const proto::ImageName image_;
  const RegistryOptions options_;
  Guarded<std::shared_ptr<const Places>> places_;  // shared with requests under way
};

}  // namespace hydrant::source
