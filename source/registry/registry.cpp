#include "source/registry/registry.h"

#include "proto/oci.h"
#include "source/http/http_blob.h"
#include "source/registry/registry_auth.h"

namespace hydrant::source {

namespace {

bool is_plain(const proto::ImageName& image, const RegistryOptions& options) {
  return options.plain_http.value_or(proto::is_loopback_host(image.registry));
}

std::string accepted_types() {
  std::string out = "Accept: ";
  for (auto type :
       {proto::media::kOciIndex, proto::media::kOciManifest, proto::media::kDockerIndex, proto::media::kDockerManifest})
    out += std::string(type) + ", ";
  return out + "*/*;q=0.1";
}

}  // namespace

RegistryStore::RegistryStore(std::shared_ptr<HttpClient> client, proto::ImageName image, RegistryOptions options)
    : client_(std::move(client)),
      image_(std::move(image)),
      base_url_((is_plain(image_, options) ? "http://" : "https://") + image_.api_host()),
      auth_(std::make_shared<RegistryAuth>(client_, image_.registry, image_.repository, is_plain(image_, options),
                                           std::move(options.credentials), *options.clock)) {}
RegistryStore::~RegistryStore() = default;

std::string RegistryStore::describe() const { return image_.registry + "/" + image_.repository; }

std::string RegistryStore::url(const std::string& tail) const {
  return base_url_ + "/v2/" + image_.repository + "/" + tail;
}

Result<StoredManifest> RegistryStore::manifest(const std::string& reference, Deadline deadline) {
  std::optional<Digest> wanted;
  if (reference.find(':') != reference.npos) {
    HYDRANT_TRY(wanted, Digest::parse(reference));
  } else if (reference.empty() || reference.find_first_of("/?#% ") != reference.npos) {
    return fail(Code::kInvalid, describe() + ": '" + reference + "' is no tag");
  }
  const auto name = describe() + (wanted ? "@" : ":") + reference;
  auto document = client_->get({.url = url("manifests/" + reference),
                                .headers = {accepted_types()},
                                .body = {},
                                .range = {},
                                .authorizer = auth_.get(),
                                .patience = {deadline, {}}},
                               proto::kMaxDocument);
  if (!document) return fail(std::move(document.error()).in("image " + name));

  const auto& head = document->head;
  auto said = proto::registry_errors(head.error_body);
  auto aside = said.empty() ? "" : " (" + said + ")";
  switch (head.status) {
    case 200: break;
    case 401: return fail(Code::kUnauthorized, "image " + name + ": " + auth_->way_out() + aside);
    case 403: return fail(Code::kDenied, "image " + name + ": " + image_.registry + " forbids access to it" + aside);
    case 404:
      if (said.empty() && head.header("docker-distribution-api-version").empty())
        return fail(Code::kNotFound, "image " + name + ": " + base_url_ +
                                         " answers, but not as an image registry does; check the registry's address");
      return fail(Code::kNotFound, "image " + name + " does not exist" + aside + "; check its name and tag");
    default: return fail(status_error(head, "image " + name));
  }

  auto type = head.header("content-type");
  type = type.substr(0, type.find(';'));
  if (type == "text/html")
    return fail(Code::kUnsupported, "image " + name + ": " + base_url_ +
                                        " answers a web page, so it is no image registry; check the address");
  const auto digest = sha256(as_bytes(document->body));
  if (wanted && digest != *wanted)
    return fail(Code::kCorrupt, "image " + name + ": the registry's manifest does not match its digest");
  if (auto header = Digest::parse(head.header("docker-content-digest")); header && *header != digest)
    return fail(Code::kCorrupt, "image " + name + ": the manifest was damaged on its way, or in the registry");
  return StoredManifest{std::move(type), std::move(document->body), digest};
}

Result<std::shared_ptr<Blob>> RegistryStore::blob(const Digest& digest, uint64_t size, Deadline) {
  return std::shared_ptr<Blob>(HttpBlob::immutable(
      client_, {.url = url("blobs/" + digest.text()), .authorizer = auth_, .name = describe() + "@" + digest.text()},
      size));
}

}  // namespace hydrant::source
