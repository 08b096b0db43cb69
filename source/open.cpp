#include "source/open.h"

#include "source/file/file_blob.h"
#include "source/file/oci_dir.h"
#include "source/http/http_blob.h"
#include "source/registry/registry.h"
#include "source/s3/s3_bucket.h"

namespace hydrant::source {

namespace {

constexpr size_t kMaxIndexDepth = 3;

// The manifest of the platform's image, through as many indexes as there are above it.
Result<ResolvedImage> find_manifest(ImageStore& store, const std::string& reference,
                                    const std::optional<proto::Platform>& platform, Deadline deadline) {
  HYDRANT_TRY(StoredManifest stored, store.manifest(reference, deadline));
  std::vector<StoredManifest> above;
  for (;;) {
    HYDRANT_TRY(auto document, proto::decode_manifest(stored.body, stored.media_type));
    if (auto* manifest = std::get_if<proto::ImageManifest>(&document))
      return ResolvedImage{stored.digest, std::move(stored.body), std::move(*manifest), {}, std::move(above)};
    if (above.size() == kMaxIndexDepth) return fail(Code::kUnsupported, "indexes stand in indexes");
    above.push_back(std::move(stored));
    const auto& index = std::get<proto::ImageIndex>(document);
    HYDRANT_TRY(proto::Descriptor chosen, proto::choose_platform(index, platform.value_or(proto::Platform::native())));
    HYDRANT_TRY(stored, store.manifest(chosen.digest.text(), deadline));
    HYDRANT_TRY_VOID(proto::check_bytes(chosen, as_bytes(stored.body)));
    if (stored.media_type.empty()) stored.media_type = chosen.media_type;
  }
}

Result<ResolvedImage> resolve(ImageStore& store, const std::string& reference,
                              const std::optional<proto::Platform>& platform, Deadline deadline) {
  HYDRANT_TRY(ResolvedImage image, find_manifest(store, reference, platform, deadline));
  HYDRANT_TRY_VOID(proto::check_is_image(image.manifest));
  const auto& config = image.manifest.config;
  if (config.size > proto::kMaxDocument) return fail(Code::kUnsupported, "its config is larger than 4 MiB");
  HYDRANT_TRY(auto blob, store.blob(config.digest, config.size, deadline));
  HYDRANT_TRY(Buffer body, read_all(*blob, {.range = {0, config.size}, .deadline = deadline, .stop = {}}));
  HYDRANT_TRY_VOID(proto::check_bytes(config, body));
  HYDRANT_TRY(image.config, proto::decode_config(as_text(body)));
  HYDRANT_TRY_VOID(proto::settle_diff_ids(image.manifest, image.config));
  if (platform) {
    proto::Descriptor self = config;
    self.platform = image.config.platform;
    HYDRANT_TRY_VOID(proto::choose_platform({.manifests = {self}, .annotations = {}}, *platform));
  }
  return image;
}

}  // namespace

Result<std::shared_ptr<ImageStore>> open_image_store(const proto::SourceReference& reference,
                                                     std::shared_ptr<HttpClient> client, const OpenOptions& options) {
  switch (reference.kind) {
    case proto::SourceKind::kRegistry:
      return std::shared_ptr<ImageStore>(std::make_shared<RegistryStore>(
          std::move(client), reference.image,
          RegistryOptions{
              .plain_http = options.plain_http, .credentials = options.credentials, .hosts = options.hosts}));
    case proto::SourceKind::kOciDir: {
      HYDRANT_TRY(auto store, OciDirStore::open(reference.path));
      return std::shared_ptr<ImageStore>(std::move(store));
    }
    default: return fail(Code::kInvalid, reference.display() + " is one file, not a place of images");
  }
}

Result<std::shared_ptr<Blob>> open_blob(const proto::SourceReference& reference, std::shared_ptr<HttpClient> client,
                                        const HostDirectory* hosts, Deadline deadline) {
  switch (reference.kind) {
    case proto::SourceKind::kHttp: {
      HttpBlob::Target target{.url = reference.url, .authorizer = {}, .name = {}, .netrc = true};
      if (hosts) {
        const auto origin = origin_of(reference.url);
        HYDRANT_TRY(auto places, hosts->find(origin.substr(origin.find("://") + 3)));
        target.host = places->own.options;
      }
      HYDRANT_TRY(auto blob, HttpBlob::open(std::move(client), std::move(target), deadline));
      return std::shared_ptr<Blob>(std::move(blob));
    }
    case proto::SourceKind::kFile: {
      HYDRANT_TRY(auto blob, FileBlob::open(reference.path));
      return std::shared_ptr<Blob>(std::move(blob));
    }
    case proto::SourceKind::kS3: {
      HYDRANT_TRY(auto name, parse_s3_url(reference.url));
      if (name.key.empty() || name.key.ends_with('/'))
        return fail(Code::kInvalid, reference.display() + " names no object; say s3://bucket/key");
      HYDRANT_TRY(auto bucket, S3Bucket::open(std::move(client), name.bucket));
      return bucket->blob(name.key, deadline);
    }
    default: return fail(Code::kInvalid, reference.display() + " names an image, not a file");
  }
}

Result<ResolvedImage> resolve_image(ImageStore& store, const std::string& reference,
                                    const std::optional<proto::Platform>& platform, Deadline deadline) {
  auto image = resolve(store, reference, platform, deadline);
  // Stores name the image in their own errors; decoding does not know it.
  if (!image && image.error().what.find(store.describe()) == std::string::npos)
    return fail(std::move(image.error()).in("image " + store.describe() + (reference.empty() ? "" : " " + reference)));
  return image;
}

}  // namespace hydrant::source
