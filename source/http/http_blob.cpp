#include "source/http/http_blob.h"

#include <curl/curl.h>

#include <algorithm>
#include <charconv>

#include "base/check.h"
#include "proto/http_header.h"
#include "proto/reference.h"
#include "source/http/backoff.h"

namespace hydrant::source {

namespace {

std::optional<uint64_t> content_length(const HttpHead& head) {
  auto text = head.header("content-length");
  uint64_t value = 0;
  auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || text.empty() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

// A weak validator says "much the same", which is not what a range of bytes needs.
std::string strong_etag(const HttpHead& head) {
  auto etag = head.header("etag");
  return etag.starts_with("W/") ? std::string() : etag;
}

std::string range_text(const ByteRange& range) {
  return "bytes " + std::to_string(range.begin) + "-" + std::to_string(range.end - 1);
}

}  // namespace

// Where one read has got to. On the reader's stack.
struct HttpBlob::Progress {
  const ReadRequest& request;
  const Sink& sink;
  uint64_t at;  // every byte of the request before it went to the sink
  std::optional<std::chrono::seconds> retry_after = {};
};

HttpBlob::HttpBlob(std::shared_ptr<HttpClient> client, Target target, uint64_t size, bool immutable)
    : client_(std::move(client)), target_(std::move(target)), size_(size), immutable_(immutable) {}

std::shared_ptr<HttpBlob> HttpBlob::immutable(std::shared_ptr<HttpClient> client, Target target, uint64_t size) {
  if (target.name.empty()) target.name = proto::url_without_secrets(target.url);
  return std::shared_ptr<HttpBlob>(new HttpBlob(std::move(client), std::move(target), size, true));
}

Result<std::shared_ptr<HttpBlob>> HttpBlob::open(std::shared_ptr<HttpClient> client, Target target, Deadline deadline) {
  if (target.name.empty()) target.name = proto::url_without_secrets(target.url);
  auto blob = std::shared_ptr<HttpBlob>(new HttpBlob(client, std::move(target), 0, false));
  const auto& name = blob->target_.name;
  HttpRequest request{.url = blob->target_.url,
                      .headers = {},
                      .body = {},
                      .range = ByteRange{0, 1},
                      .authorizer = blob->target_.authorizer.get(),
                      .host = blob->target_.host,
                      .netrc = blob->target_.netrc,
                      .patience = {deadline, {}}};
  Backoff backoff(client->options(), request.patience, blob->target_.attempts);
  HttpHead head;
  for (;;) {
    // A GET and not a HEAD: signed URLs are valid for one method. The sink's false ends a 200 after its first piece; it
    // would end the connection of a 206, too, which the first reader is to have.
    auto sent =
        client->send(request, [](const HttpHead& answer, Bytes) -> Result<bool> { return answer.status == 206; });
    // S3 has no first byte of an empty object to give, and does not say why: whoever asks for all of it learns the
    // size.
    if (sent && sent->status == 416 && sent->header("content-range").empty() && request.range) {
      request.range.reset();
      continue;
    }
    auto error = sent ? status_error(*sent, name) : sent.error();
    if (sent && !error.retry) {
      head = std::move(*sent);
      break;
    }
    if (!error.retry) return fail(std::move(error));
    HYDRANT_TRY_VOID(backoff.wait(error, sent ? sent->retry_after : std::nullopt));
  }
  auto range = proto::parse_content_range(head.header("content-range"));
  std::optional<uint64_t> size;
  if (head.status == 206 || head.status == 416) {
    // An empty object answers the request for its first byte with 416.
    if (range) size = range->total;
    if (head.status == 416 && size != 0u) return fail(status_error(head, name));
  } else if (head.status == 200) {
    size = content_length(head);
  } else {
    return fail(status_error(head, name));
  }
  if (!size) return fail(Code::kUnsupported, name + ": the server does not tell how long it is");
  blob->size_ = *size;
  blob->etag_ = strong_etag(head);
  blob->last_modified_ = head.header("last-modified");
  if (!request.range && *size != 0) return fail(Code::kUnsupported, name + ": the server refuses every range");
  blob->ranges_ = head.status != 200 || *size == 0;
  return blob;
}

BlobVersion HttpBlob::version() const {
  time_t modified = last_modified_.empty() ? -1 : ::curl_getdate(last_modified_.c_str(), nullptr);
  return {.validator = etag_.empty() ? last_modified_ : etag_,
          .modified = std::max<time_t>(modified, 0),
          .ranges = ranges_};
}

Result<> HttpBlob::check_same(const HttpHead& head) const {
  if (immutable_) return {};
  bool same = etag_.empty() ? last_modified_.empty() || head.header("last-modified") == last_modified_
                            : strong_etag(head) == etag_;
  if (!same) return fail(Code::kGone, target_.name + ": has changed on the server; mount it again");
  return {};
}

// A 206 must say that it is what was asked for, of an object as long as this one.
Result<> HttpBlob::check_range(const HttpHead& head, const ByteRange& asked) const {
  auto field = head.header("content-range");
  auto range = proto::parse_content_range(field);
  if (range && range->total && *range->total != size_)
    return fail(immutable_ ? Code::kCorrupt : Code::kGone, target_.name + ": is " + std::to_string(*range->total) +
                                                               " bytes long on the server, not " +
                                                               std::to_string(size_));
  if (!range || range->range != asked)
    return fail(Code::kCorrupt, target_.name + ": asked for " + range_text(asked) + ", the server answers '" +
                                    proto::url_without_secrets(field.substr(0, 100)) + "'");
  return {};
}

// One try for what is still missing. Moves progress.at by what the sink has taken.
Result<> HttpBlob::attempt(Progress& progress) {
  const ReadRequest& read = progress.request;
  const ByteRange asked{progress.at, read.range.end};
  uint64_t skip = 0;  // bytes of a 200 that stand before those still missing
  bool checked = false;
  auto check = [&](const HttpHead& head) -> Result<> {
    checked = true;
    HYDRANT_TRY_VOID(check_same(head));
    if (head.status == 206) return check_range(head, asked);
    if (head.status != 200)
      return fail(Code::kUnsupported, target_.name + ": unexpected status " + std::to_string(head.status));
    auto length = content_length(head);
    if (length && *length != size_)
      return fail(
          immutable_ ? Code::kCorrupt : Code::kGone,
          target_.name + ": is " + std::to_string(*length) + " bytes long on the server, not " + std::to_string(size_));
    if (read.range.begin != 0) return fail(Code::kUnsupported, target_.name + ": the server has no ranges");
    skip = progress.at;
    return {};
  };
  auto sink = [&](const HttpHead& head, Bytes piece) -> Result<bool> {
    if (!checked) HYDRANT_TRY_VOID(check(head));
    auto skipped = std::min<uint64_t>(skip, piece.size());
    skip -= skipped;
    piece = piece.subspan(skipped);
    auto wanted = piece.first(std::min<uint64_t>(piece.size(), read.range.end - progress.at));
    const bool pause = piece.empty() && skipped == 0;
    if (!wanted.empty() || pause) HYDRANT_TRY_VOID(progress.sink(wanted));
    progress.at += wanted.size();
    if (wanted.size() < piece.size() && head.status == 206)
      return fail(Code::kCorrupt, target_.name + ": the server sends more than it announced");
    return progress.at < read.range.end || head.status == 206;
  };

  auto redirected = *redirected_url_.lock();
  auto send = [&](const std::string& url, Authorizer* authorizer) {
    checked = false;
    return client_->send({.url = url,
                          .headers = {},
                          .body = {},
                          .range = asked,
                          .authorizer = authorizer,
                          .host = url == target_.url ? target_.host : nullptr,
                          .netrc = target_.netrc,
                          .patience = {read.deadline, read.stop}},
                         sink);
  };
  auto forget = [&] {
    if (auto cached = redirected_url_.lock(); *cached == redirected) cached->clear();
  };
  bool direct = !redirected.empty();
  auto head = direct ? send(redirected, nullptr) : send(target_.url, target_.authorizer.get());
  // Signed URLs expire, and each storage host has a status of its own for that: ask the origin, once a try.
  if (direct && head && (head->status < 200 || head->status > 299)) {
    forget();
    direct = false;
    head = send(target_.url, target_.authorizer.get());
  }
  auto done = conclude(progress, head, [&](const HttpHead& h) { return checked ? Result<>() : check(h); });
  // Where the redirect led may be down, or wrong, for good; the origin knows a better place for the next try.
  if (!done && direct && done.error().code != Code::kCancelled) forget();
  if (done && !direct && head->url != target_.url && origin_of(head->url) != origin_of(target_.url))
    *redirected_url_.lock() = head->url;
  return done;
}

// What a try has come to. `check` judges a success whose sink saw no body.
Result<> HttpBlob::conclude(Progress& progress, Result<HttpHead>& head,
                            const std::function<Result<>(const HttpHead&)>& check) const {
  if (!head) return fail(std::move(head.error()));
  if (head->status < 200 || head->status > 299) {
    progress.retry_after = head->retry_after;
    auto error = status_error(*head, target_.name);
    if (head->status == 416 && !immutable_) error.code = Code::kGone;
    if (head->status == 416)
      error.what += ": is shorter on the server than the " + std::to_string(size_) + " bytes expected";
    return fail(std::move(error));
  }
  HYDRANT_TRY_VOID(check(*head));
  if (progress.at < progress.request.range.end)
    return fail(
        Error{.code = Code::kUnreachable, .what = target_.name + ": the answer ends early", .sys = 0, .retry = true});
  return {};
}

Result<> HttpBlob::read(const ReadRequest& request, const Sink& sink) {
  if (request.range.begin > request.range.end || request.range.end > size_)
    return fail(Code::kInvalid, target_.name + ": read beyond its end");
  Progress progress{.request = request, .sink = sink, .at = request.range.begin};
  const Patience patience{request.deadline, request.stop};
  Backoff backoff(client_->options(), patience, target_.attempts);
  while (progress.at < request.range.end) {
    const uint64_t before = progress.at;
    progress.retry_after.reset();
    auto done = attempt(progress);
    if (done) break;
    // An origin that is asked too often is no broken one: its pace decides when it is asked again, until the deadline.
    if (progress.at > before || done.error().code == Code::kBusy) backoff.reset();
    if (!done.error().retry) return done;
    HYDRANT_TRY_VOID(backoff.wait(done.error(), progress.retry_after));
  }
  return {};
}

}  // namespace hydrant::source
