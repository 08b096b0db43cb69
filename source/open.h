// From a SOURCE to what reads it, and from a store to one image of it.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "proto/oci.h"
#include "proto/reference.h"
#include "source/auth/docker_config.h"
#include "source/hosts/host_directory.h"
#include "source/http/http_client.h"
#include "source/source.h"

namespace hydrant::source {

struct OpenOptions {
  DockerConfig credentials;
  std::optional<bool> plain_http;                        // nothing: plain HTTP for loopback registries alone
  std::shared_ptr<const HostDirectory> hosts = nullptr;  // null: registries are asked themselves
};

// For kRegistry and kOciDir; other kinds are kInvalid. A registry is not asked anything yet.
Result<std::shared_ptr<ImageStore>> open_image_store(const proto::SourceReference& reference,
                                                     std::shared_ptr<HttpClient> client, const OpenOptions& options);

// For kHttp, kS3 and kFile; other kinds are kInvalid.
// `hosts` (may be null) says how the host of an http(s) URL wants to be asked; its mirrors are for registries alone.
Result<std::shared_ptr<Blob>> open_blob(const proto::SourceReference& reference, std::shared_ptr<HttpClient> client,
                                        const HostDirectory* hosts, Deadline deadline);

// One platform's image of a store, checked: it is a container image, digests and sizes match, every layer's type is
// known, there is a diff_id for each layer.
struct ResolvedImage {
  Digest manifest_digest;  // of the platform's manifest, not of an index above it
  std::string manifest_body;
  proto::ImageManifest manifest;
  proto::ImageConfig config;
  std::vector<StoredManifest> above{};  // the indexes that it was chosen from, the one that the reference names first
};

// `reference` as ImageStore::manifest takes it (SourceReference::image_reference). Without a platform an index gives
// the native one and a lone manifest is taken whatever it is for; with one, an image for another is kNotFound.
Result<ResolvedImage> resolve_image(ImageStore& store, const std::string& reference,
                                    const std::optional<proto::Platform>& platform, Deadline deadline);

}  // namespace hydrant::source
