#include "source/http/http_client.h"

#include "proto/oci.h"
#include "proto/reference.h"
#include "proto/s3_xml.h"
#include "source/http/backoff.h"
#include "source/http/hedging.h"
#include "source/http/politeness.h"
#include "source/http/transfer.h"

namespace hydrant::source {

namespace {

constexpr int kMaxRedirects = 5;

bool is_redirect(int status) {
  return status == 301 || status == 302 || status == 303 || status == 307 || status == 308;
}

bool may_be_refusal(const HttpHead& head) {
  return head.status == 400 || head.status == 401 || head.status == 403 ||
         (is_redirect(head.status) && head.header("location").empty());
}

bool asks_for_retry(int status) { return status == 408 || status == 429 || (status >= 500 && status != 501); }

Code code_of(int status) {
  switch (status) {
    case 401:
    case 407: return Code::kUnauthorized;
    case 403: return Code::kDenied;
    case 404: return Code::kNotFound;
    case 408: return Code::kTooSlow;
    case 410: return Code::kGone;
    case 416: return Code::kCorrupt;
    case 429:
    case 503: return Code::kBusy;
    case 405:
    case 501: return Code::kUnsupported;
    default: return Code::kIo;
  }
}

}  // namespace

std::string HttpHead::header(const std::string& lower_case_name) const {
  auto found = headers.find(lower_case_name);
  return found == headers.end() ? std::string() : found->second;
}

HttpClient::HttpClient(HttpOptions options) : options_(std::move(options)) {
  if (options_.user_agent.empty()) options_.user_agent = "hydrant/" HYDRANT_VERSION;
  pool_ = std::make_unique<ConnectionPool>(options_.idle_per_origin);
  politeness_ = std::make_unique<Politeness>(options_.transfers_per_origin);
  hedging_ = std::make_unique<Hedging>();
}
HttpClient::~HttpClient() = default;

uint64_t HttpClient::hedged() const { return hedging_->count(); }

Result<HttpHead> HttpClient::send(const HttpRequest& request, const BodySink& sink) {
  const auto home = origin_of(request.url);
  std::string url = request.url;
  Authorization authorization;
  if (request.authorizer) {
    HYDRANT_TRY(authorization, request.authorizer->authorize(request));
  }
  unsigned lessons = 0;
  for (int redirects = 0;;) {
    const auto origin = origin_of(url);
    const bool at_home = origin == home;
    auto exchange = [&]() -> Result<HttpHead> {
      HYDRANT_TRY(auto turn, politeness_->take(origin, request.patience));
      // Ranges alone: others are few, or change something.
      Hedge hedge;
      if (request.range)
        hedge = {hedging_->slow(origin), [&] { return !politeness_->is_limited(origin) && hedging_->spend(origin); }};
      if (!at_home) return transfer(*pool_, options_, request, url, {}, nullptr, hedge, sink);
      return transfer(*pool_, options_, request, url, authorization, request.host.get(), hedge, sink);
    };
    HYDRANT_TRY(HttpHead head, exchange());
    if (request.range) hedging_->answered(origin, head.first_byte);
    politeness_->answered(origin, head);
    if (at_home && request.authorizer && lessons < request.authorizer->lessons() && may_be_refusal(head)) {
      ++lessons;
      HYDRANT_TRY(bool more, request.authorizer->refused(authorization.value, head, request.patience));
      if (!more) return head;
      HYDRANT_TRY(authorization, request.authorizer->authorize(request));
      continue;
    }
    if (!is_redirect(head.status)) return head;
    // Nobody who sends credentials in a body meant them for somebody else.
    if (request.method != "GET")
      return fail(Code::kUnsupported, proto::url_without_secrets(url) + ": redirects a " + request.method);
    if (++redirects > kMaxRedirects)
      return fail(Code::kCorrupt, proto::url_without_secrets(request.url) + ": redirects in a circle");
    HYDRANT_TRY(url, redirect_target(url, head.header("location")));
  }
}

Result<HttpClient::Document> HttpClient::get(const HttpRequest& request, size_t limit) {
  const auto name = request.method + " " + proto::url_without_secrets(request.url);
  Backoff backoff(options_, request.patience, request.attempts);
  for (;;) {
    Document document;
    auto head = send(request, [&](const HttpHead&, Bytes piece) -> Result<bool> {
      if (piece.size() > limit - document.body.size())
        return fail(Code::kCorrupt, name + ": answer is longer than " + std::to_string(limit) + " bytes");
      document.body += as_text(piece);
      return true;
    });
    if (!head) {
      if (!head.error().retry) return fail(std::move(head.error()));
      HYDRANT_TRY_VOID(backoff.wait(head.error()));
      continue;
    }
    if (asks_for_retry(head->status)) {
      HYDRANT_TRY_VOID(backoff.wait(status_error(*head, name), head->retry_after));
      continue;
    }
    document.head = std::move(*head);
    return document;
  }
}

Error status_error(const HttpHead& head, const std::string& what) {
  Error error{.code = code_of(head.status), .what = what + ": status " + std::to_string(head.status)};
  auto said = proto::registry_errors(head.error_body);
  if (auto s3 = proto::decode_s3_error(head.error_body); said.empty() && !s3.code.empty())
    said = s3.code + (s3.message.empty() ? "" : ": " + s3.message);
  if (!said.empty()) error.what += " (" + said + ")";
  error.retry = asks_for_retry(head.status);
  return error;
}

}  // namespace hydrant::source
