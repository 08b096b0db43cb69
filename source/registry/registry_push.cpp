// What stands beside an image: finding it, and putting it there.
#include <nlohmann/json.hpp>

#include "proto/index_artifact.h"
#include "source/http/transfer.h"
#include "source/registry/registry.h"
#include "source/registry/registry_auth.h"

namespace hydrant::source {

namespace {

constexpr int kMaxPages = 16;
constexpr int kTries = 4;  // to change a tag that others change, too

// The URL in "<…>; rel=\"next\"", or nothing.
std::string next_page(const std::string& link) {
  const auto open = link.find('<'), close = link.find('>');
  if (open == link.npos || close == link.npos || close < open || link.find("next", close) == link.npos) return {};
  return link.substr(open + 1, close - open - 1);
}

bool is_success(int status) { return status >= 200 && status < 300; }

// Those of that type: servers may filter, but need not.
Result<> collect(const std::string& body, std::string_view artifact_type, std::vector<proto::Descriptor>& found) {
  HYDRANT_TRY(auto document, proto::decode_manifest(body, proto::media::kOciIndex));
  if (!std::holds_alternative<proto::ImageIndex>(document)) return fail(Code::kCorrupt, "no image index");
  for (auto& entry : std::get<proto::ImageIndex>(document).manifests)
    if (entry.artifact_type == artifact_type) found.push_back(std::move(entry));
  return {};
}

bool lists(const std::string& body, const Digest& digest) {
  auto document = proto::decode_manifest(body, proto::media::kOciIndex);
  if (!document || !std::holds_alternative<proto::ImageIndex>(*document)) return false;
  for (const auto& entry : std::get<proto::ImageIndex>(*document).manifests)
    if (entry.digest == digest) return true;
  return false;
}

}  // namespace

Error RegistryStore::push_error(const Place& place, const HttpHead& head, const std::string& what) const {
  Error error = status_error(head, what);
  if (head.status == 401) error.what = what + ": " + place.auth->way_out();
  if (head.status == 403) error.what = what + ": " + image_.registry + " lets these credentials pull, but not push";
  if (head.status == 404 || head.status == 405) error.code = Code::kUnsupported;
  return error;
}

// With the place's credentials if the URL is the place's.
HttpRequest RegistryStore::request_of(const Place& place, std::string method, std::string url,
                                      Deadline deadline) const {
  const bool at_home = origin_of(url) == origin_of(place.url);
  return {.method = std::move(method),
          .url = std::move(url),
          .headers = {},
          .body = {},
          .range = {},
          .authorizer = at_home ? place.auth.get() : nullptr,
          .host = at_home ? place.host : nullptr,
          .attempts = place.own ? 0U : 1U,
          .patience = {deadline, {}}};
}

// Nothing when the registry does not know the API: there are many ways of saying so.
Result<std::optional<HttpClient::Document>> RegistryStore::referrers_page(const Place& place, const std::string& page,
                                                                          Deadline deadline) {
  auto request = request_of(place, "GET", page, deadline);
  request.headers = {"Accept: " + std::string(proto::media::kOciIndex)};
  HYDRANT_TRY(auto document, client_->get(request, proto::kMaxDocument));
  if (document.head.status == 200 && document.head.header("content-type").starts_with(proto::media::kOciIndex))
    return std::optional(std::move(document));
  return std::optional<HttpClient::Document>();
}

// Nothing when the place has no such list.
Result<std::optional<std::vector<proto::Descriptor>>> RegistryStore::referrers_at(const Place& place,
                                                                                  const Digest& subject,
                                                                                  std::string_view artifact_type,
                                                                                  Deadline deadline) {
  std::vector<proto::Descriptor> found;
  std::string page = url(place, "referrers/" + subject.text());
  page += (page.find('?') == page.npos ? "?" : "&") + ("artifactType=" + std::string(artifact_type));
  for (int pages = 0; pages < kMaxPages; ++pages) {
    HYDRANT_TRY(auto document, referrers_page(place, page, deadline));
    if (!document && pages == 0) return std::optional<std::vector<proto::Descriptor>>();
    if (!document) break;
    HYDRANT_TRY_VOID(collect(document->body, artifact_type, found));
    const auto next = next_page(document->head.header("link"));
    if (next.empty()) break;
    HYDRANT_TRY(page, redirect_target(page, next));
  }
  return std::optional(std::move(found));
}

Result<std::vector<proto::Descriptor>> RegistryStore::referrers(const Digest& subject, std::string_view artifact_type,
                                                                Deadline deadline) {
  const auto name = "referrers of " + describe() + "@" + subject.text();
  HYDRANT_TRY(auto places, this->places());
  bool listed = false;  // by the registry itself: then there is no tag
  for (const Place& place : places->all) {
    if (!place.resolve) continue;
    auto found =
        referrers_at(place, subject, artifact_type, place.own ? deadline : Deadline::after(deadline.left() / 2));
    if (found && *found && !(*found)->empty()) return **std::move(found);
    if (!found && place.own) return fail(std::move(found).error().in(name));
    listed = found && *found;
  }
  std::vector<proto::Descriptor> found;
  if (listed) return found;
  auto tag = manifest(proto::referrers_tag(subject), deadline);
  if (!tag && tag.error().code == Code::kNotFound) return found;
  if (!tag) return fail(std::move(tag).error().in(name));
  auto collected = collect(tag->body, artifact_type, found);
  if (!collected) return fail(std::move(collected).error().in(name));
  return found;
}

Result<> RegistryStore::put_blob(const Digest& digest, Blob& content, Deadline deadline) {
  const auto name = "push of blob " + digest.text() + " to " + describe();
  HYDRANT_TRY(auto places, this->places());
  const Place& place = places->own();
  const auto begin = request_of(place, "POST", url(place, "blobs/uploads/"), deadline);
  HYDRANT_TRY(auto begun, client_->get(begin, proto::kMaxDocument));
  if (begun.head.status != 202) return fail(push_error(place, begun.head, name));
  auto target = redirect_target(begin.url, begun.head.header("location"));
  if (!target) return fail(std::move(target).error().in(name));
  *target += (target->find('?') == target->npos ? "?" : "&") + ("digest=" + digest.text());
  auto upload = request_of(place, "PUT", *std::move(target), deadline);
  upload.headers = {"Content-Type: application/octet-stream"};
  upload.upload = &content;
  HYDRANT_TRY(auto done, client_->get(upload, proto::kMaxDocument));
  if (!is_success(done.head.status)) return fail(push_error(place, done.head, name));
  return {};
}

Result<HttpHead> RegistryStore::put_any_manifest(const Place& place, const std::string& reference,
                                                 const std::string& media_type, std::string body,
                                                 std::vector<std::string> headers, Deadline deadline) {
  auto request = request_of(place, "PUT", url(place, "manifests/" + reference), deadline);
  headers.push_back("Content-Type: " + media_type);
  request.headers = std::move(headers);
  request.body = std::move(body);
  HYDRANT_TRY(auto done, client_->get(request, proto::kMaxDocument));
  return std::move(done.head);
}

Result<> RegistryStore::put_manifest(const std::string& reference, const std::string& media_type, std::string body,
                                     Deadline deadline) {
  HYDRANT_TRY(auto places, this->places());
  const Place& place = places->own();
  HYDRANT_TRY(auto head, put_any_manifest(place, reference, media_type, std::move(body), {}, deadline));
  if (is_success(head.status)) return {};
  return fail(push_error(place, head, "push of manifest " + reference + " to " + describe()));
}

Result<> RegistryStore::put_referrer(const Digest& subject, const proto::Descriptor& self, std::string body,
                                     Deadline deadline) {
  HYDRANT_TRY(auto places, this->places());
  const Place& place = places->own();
  HYDRANT_TRY(auto head, put_any_manifest(place, self.digest.text(), self.media_type, std::move(body), {}, deadline));
  if (!is_success(head.status))
    return fail(push_error(place, head, "push of manifest " + self.digest.text() + " to " + describe()));
  if (!head.header("oci-subject").empty()) return {};  // the registry keeps the list
  return list_in_tag(place, subject, self, deadline);
}

// Read, change, write, read again: whoever wrote in between may have lost our entry, or we theirs but for If-Match,
// which few registries look at.
Result<> RegistryStore::list_in_tag(const Place& place, const Digest& subject, const proto::Descriptor& self,
                                    Deadline deadline) {
  const auto tag = proto::referrers_tag(subject);
  const auto name = "list of referrers " + describe() + ":" + tag;
  auto ask = request_of(place, "GET", url(place, "manifests/" + tag), deadline);
  ask.headers = {"Accept: " + std::string(proto::media::kOciIndex)};
  for (int tries = 0; tries < kTries; ++tries) {
    HYDRANT_TRY(auto now, client_->get(ask, proto::kMaxDocument));
    if (now.head.status != 200 && now.head.status != 404) return fail(push_error(place, now.head, name));
    if (now.head.status == 200 && lists(now.body, self.digest)) return {};
    auto longer = proto::with_referrer(now.head.status == 200 ? now.body : "", self);
    if (!longer) return fail(std::move(longer).error().in(name));
    std::vector<std::string> headers;
    if (auto etag = now.head.header("etag"); !etag.empty()) headers.push_back("If-Match: " + etag);
    HYDRANT_TRY(auto put, put_any_manifest(place, tag, std::string(proto::media::kOciIndex), *std::move(longer),
                                           std::move(headers), deadline));
    if (put.status != 412 && !is_success(put.status)) return fail(push_error(place, put, name));
  }
  return fail(Code::kBusy, name + " is being changed by others all the time; try again");
}

}  // namespace hydrant::source
