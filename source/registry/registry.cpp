#include "source/registry/registry.h"

#include "proto/oci.h"
#include "source/http/http_blob.h"
#include "source/mirrors.h"
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
    : client_(std::move(client)), image_(std::move(image)), options_(std::move(options)) {}
RegistryStore::~RegistryStore() = default;

std::string RegistryStore::describe() const { return image_.registry + "/" + image_.repository; }

RegistryStore::Place RegistryStore::make_place(const RegistryPlace& described, bool own) const {
  std::string url = described.url;
  if (url.empty()) url = (is_plain(image_, options_) ? "http://" : "https://") + image_.api_host() + "/v2";
  const auto origin = origin_of(url);
  const auto host = origin.substr(origin.find("://") + 3);
  return {.url = url,
          .query = host == image_.api_host() ? "" : "?ns=" + image_.registry,
          .pull = described.pull,
          .resolve = described.resolve,
          .own = own,
          .host = described.options,
          .auth = std::make_shared<RegistryAuth>(
              client_, RegistryAuth::Place{own ? image_.registry : host, image_.repository, origin, described.options},
              options_.credentials, *options_.clock),
          .health = std::make_shared<Health>(*options_.clock)};
}

Result<std::shared_ptr<const RegistryStore::Places>> RegistryStore::places() {
  std::shared_ptr<const RegistryPlaces> described;
  if (options_.hosts) {
    HYDRANT_TRY(described, options_.hosts->find(image_.registry));
  }
  auto known = places_.lock();
  if (*known && (*known)->described == described) return *known;
  auto made = std::make_shared<Places>();
  made->described = described;
  if (described)
    for (const auto& mirror : described->mirrors) made->all.push_back(make_place(mirror, false));
  made->all.push_back(make_place(described ? described->own : RegistryPlace{}, true));
  *known = made;
  return std::shared_ptr<const Places>(std::move(made));
}

std::string RegistryStore::url(const Place& place, const std::string& tail) const {
  return place.url + "/" + image_.repository + "/" + tail + place.query;
}

Result<StoredManifest> RegistryStore::manifest(const std::string& reference, Deadline deadline) {
  std::optional<Digest> wanted;
  if (reference.find(':') != reference.npos) {
    HYDRANT_TRY(wanted, Digest::parse(reference));
  } else if (reference.empty() || reference.find_first_of("/?#% ") != reference.npos) {
    return fail(Code::kInvalid, describe() + ": '" + reference + "' is no tag");
  }
  const auto name = describe() + (wanted ? "@" : ":") + reference;
  HYDRANT_TRY(auto places, this->places());
  std::vector<const Place*> able;
  for (const auto& place : places->all)
    if (wanted ? place.pull : place.resolve) able.push_back(&place);
  if (able.empty())
    return fail(Code::kUnsupported, "image " + name + ": hosts.toml of " + image_.registry + " leaves nobody to ask");

  std::optional<Error> first, own;  // of the mirrors; of the registry
  const auto order = places_in_order(able.size(), [&](size_t i) { return able[i]->health->due(); });
  for (size_t i = 0; i < order.size(); ++i) {
    const Place& place = *able[order[i]];
    const bool last = i + 1 == order.size();
    if (!place.health->worth_asking() && !last) continue;
    auto got = manifest_at(place, reference, name, wanted, last ? deadline : Deadline::after(deadline.left() / 2));
    if (got) {
      place.health->succeeded();
      return got;
    }
    // A mirror need not have every image.
    if (got.error().code != Code::kNotFound) place.health->failed();
    (place.own ? own : first) = std::move(got.error());
  }
  if (!own) return fail(*std::move(first));
  if (first) own->what += "; a mirror failed, too: " + first->what;
  return fail(*std::move(own));
}

Result<StoredManifest> RegistryStore::manifest_at(const Place& place, const std::string& reference,
                                                  const std::string& name, const std::optional<Digest>& wanted,
                                                  Deadline deadline) {
  auto document = client_->get({.url = url(place, "manifests/" + reference),
                                .headers = {accepted_types()},
                                .body = {},
                                .range = {},
                                .authorizer = place.auth.get(),
                                .host = place.host,
                                .attempts = place.own ? 0U : 1U,
                                .patience = {deadline, {}}},
                               proto::kMaxDocument);
  if (!document) return fail(std::move(document.error()).in("image " + name));

  const auto& head = document->head;
  auto said = proto::registry_errors(head.error_body);
  auto aside = said.empty() ? "" : " (" + said + ")";
  switch (head.status) {
    case 200: break;
    case 401: return fail(Code::kUnauthorized, "image " + name + ": " + place.auth->way_out() + aside);
    case 403:
      return fail(Code::kDenied, "image " + name + ": " + origin_of(place.url) + " forbids access to it" + aside);
    case 404:
      if (said.empty() && head.header("docker-distribution-api-version").empty())
        return fail(Code::kNotFound, "image " + name + ": " + origin_of(place.url) +
                                         " answers, but not as an image registry does; check the registry's address");
      return fail(Code::kNotFound, "image " + name + " does not exist" + aside + "; check its name and tag");
    default: return fail(status_error(head, "image " + name));
  }

  auto type = head.header("content-type");
  type = type.substr(0, type.find(';'));
  if (type == "text/html")
    return fail(Code::kUnsupported, "image " + name + ": " + origin_of(place.url) +
                                        " answers a web page, so it is no image registry; check the address");
  const auto digest = sha256(as_bytes(document->body));
  if (wanted && digest != *wanted)
    return fail(Code::kCorrupt, "image " + name + ": the registry's manifest does not match its digest");
  if (auto header = Digest::parse(head.header("docker-content-digest")); header && *header != digest)
    return fail(Code::kCorrupt, "image " + name + ": the manifest was damaged on its way, or in the registry");
  return StoredManifest{std::move(type), std::move(document->body), digest};
}

Result<std::shared_ptr<Blob>> RegistryStore::blob(const Digest& digest, uint64_t size, Deadline) {
  HYDRANT_TRY(auto places, this->places());
  std::vector<Mirror> mirrors;
  for (const auto& place : places->all) {
    if (!place.pull) continue;
    const auto who = place.own ? describe() : origin_of(place.url) + "/" + image_.repository;
    mirrors.push_back({.blob = HttpBlob::immutable(client_,
                                                   {.url = url(place, "blobs/" + digest.text()),
                                                    .authorizer = place.auth,
                                                    .name = who + "@" + digest.text(),
                                                    .host = place.host,
                                                    .attempts = place.own ? 0U : 1U},
                                                   size),
                       .health = place.health});
  }
  if (mirrors.empty())
    return fail(Code::kUnsupported, describe() + ": hosts.toml of " + image_.registry + " leaves nobody to pull from");
  if (mirrors.size() == 1) return std::move(mirrors.front().blob);
  return std::shared_ptr<Blob>(std::make_shared<MirroredBlob>(std::move(mirrors), digest));
}

}  // namespace hydrant::source
