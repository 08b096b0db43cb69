#include "source/s3/s3_bucket.h"

#include <curl/curl.h>

#include <algorithm>

#include "proto/reference.h"
#include "source/http/http_blob.h"

namespace hydrant::source {

namespace {

constexpr size_t kMaxPage = 8 << 20;
constexpr size_t kMaxObjects = 1'000'000;
constexpr int64_t kSkew = 60;  // a clock that is off by less is not what was refused

// By S3's rules for names; it becomes part of a host name.
bool is_bucket(const std::string& name) {
  return name.size() >= 3 && name.size() <= 63 && std::all_of(name.begin(), name.end(), [](unsigned char c) {
           return std::islower(c) || std::isdigit(c) || c == '-' || c == '.' || c == '_' || std::isupper(c);
         });
}

// A certificate for *.endpoint does not cover "a.b.endpoint", and upper case is none of DNS's.
bool fits_host(const std::string& bucket) {
  return std::all_of(bucket.begin(), bucket.end(),
                     [](unsigned char c) { return std::islower(c) || std::isdigit(c) || c == '-'; });
}

}  // namespace

// Signs, and learns from refusals what it could not know: the bucket's region, how wrong our clock is, that the keys
// have expired. Thread-safe.
class S3Authorizer final : public Authorizer {
 public:
  S3Authorizer(std::shared_ptr<HttpClient> client, S3Bucket::Options options, const std::string& region)
      : wall_clock_(options.wall_clock ? options.wall_clock : [] { return static_cast<int64_t>(::time(nullptr)); }),
        credentials_(std::move(client), std::move(options.environment), region, wall_clock_),
        state_(State{.region = region}) {}

  Result<Authorization> authorize(const HttpRequest& request) override {
    HYDRANT_TRY(AwsKeys keys, credentials_.keys(request.patience));
    if (keys.empty()) return Authorization{};
    auto state = *state_.lock();
    return sign_v4(keys, state.region, wall_clock_() + state.clock_offset, request.url);
  }

  Result<bool> refused(const std::string& used, const HttpHead& answer, const Patience& patience) override {
    const auto error = proto::decode_s3_error(answer.error_body);
    auto region = answer.header("x-amz-bucket-region");
    if (region.empty()) region = error.region;
    if (!used.empty() && !region.empty() && region.size() <= 64 && used.find("/" + region + "/s3/") == used.npos &&
        region.find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789-") == region.npos) {
      state_.lock()->region = region;
      return true;
    }
    if (error.code == "RequestTimeTooSkewed") {
      const auto theirs = static_cast<int64_t>(::curl_getdate(answer.header("date").c_str(), nullptr));
      if (theirs < 0) return false;
      auto state = state_.lock();
      const auto offset = theirs - wall_clock_();
      const bool other = std::abs(offset - state->clock_offset) > kSkew;
      state->clock_offset = offset;
      // Another reader may have put it right since this request was signed.
      return other || std::abs(offset) > kSkew;
    }
    if (used.empty() || (answer.status != 401 && answer.status != 403 && error.code != "ExpiredToken")) return false;
    HYDRANT_TRY(AwsKeys keys, credentials_.keys(patience, /*refused=*/true));
    return !keys.empty() && used.find("Credential=" + keys.access_key + "/") == used.npos;
  }

  unsigned lessons() const override { return 3; }  // region, clock and keys may all be wrong

 private:
  struct State {
    std::string region;
    int64_t clock_offset = 0;  // seconds that the server's clock is ahead
  };
  const std::function<int64_t()> wall_clock_;
  AwsCredentials credentials_;
  Guarded<State> state_;
};

Result<std::unique_ptr<S3Bucket>> S3Bucket::open(std::shared_ptr<HttpClient> client, const std::string& bucket,
                                                 Options options) {
  if (!is_bucket(bucket)) return fail(Code::kInvalid, "'" + bucket + "' is no name of an S3 bucket");
  auto settings = s3_settings(options.environment);
  if (!settings) return fail(std::move(settings.error()).in("s3://" + bucket));
  std::unique_ptr<S3Bucket> out(new S3Bucket(client, bucket));
  auto endpoint = settings->endpoint.empty() ? "https://s3." + settings->region + ".amazonaws.com" : settings->endpoint;
  if (settings->path_style || !fits_host(bucket))
    out->base_ = endpoint + "/" + bucket;
  else
    out->base_ = endpoint.insert(endpoint.find("://") + 3, bucket + ".");
  out->authorizer_ = std::make_shared<S3Authorizer>(std::move(client), std::move(options), settings->region);
  return out;
}

Result<std::shared_ptr<Blob>> S3Bucket::blob(const std::string& key, Deadline deadline) {
  HYDRANT_TRY(auto blob, HttpBlob::open(client_,
                                        {.url = base_ + "/" + aws_escape(key, true),
                                         .authorizer = authorizer_,
                                         .name = "s3://" + bucket_ + "/" + key},
                                        deadline));
  return std::shared_ptr<Blob>(std::move(blob));
}

Result<std::vector<proto::S3Object>> S3Bucket::list(const std::string& prefix, Deadline deadline) {
  const auto name = "listing of s3://" + bucket_ + "/" + prefix;
  std::vector<proto::S3Object> out;
  for (std::string continuation;;) {
    auto url = base_ + "/?list-type=2&prefix=" + aws_escape(prefix, false);
    if (!continuation.empty()) url += "&continuation-token=" + aws_escape(continuation, false);
    auto answer = client_->get({.url = url,
                                .headers = {},
                                .body = {},
                                .range = {},
                                .authorizer = authorizer_.get(),
                                .patience = {deadline, {}}},
                               kMaxPage);
    if (!answer) return fail(std::move(answer.error()).in(name));
    if (answer->head.status != 200) return fail(status_error(answer->head, name));
    auto page = proto::decode_s3_listing(answer->body);
    if (!page) return fail(std::move(page.error()).in(name));
    if (out.size() + page->objects.size() > kMaxObjects)
      return fail(Code::kUnsupported, name + ": more than a million objects");
    std::move(page->objects.begin(), page->objects.end(), std::back_inserter(out));
    // The same page again would be one without end.
    if (page->continuation == continuation && !continuation.empty())
      return fail(Code::kCorrupt, name + ": its pages go round in a circle");
    continuation = std::move(page->continuation);
    if (continuation.empty()) return out;
  }
}

Result<S3Name> parse_s3_url(const std::string& url) {
  if (!url.starts_with("s3://")) return fail(Code::kInvalid, "no s3:// URL");
  S3Name out;
  auto rest = url.substr(5);
  out.bucket = rest.substr(0, rest.find('/'));
  if (out.bucket.size() + 1 < rest.size()) {
    auto key = rest.substr(out.bucket.size() + 1);
    auto decoded = proto::percent_decode(key);
    if (!decoded || key.find_first_of("?#") != key.npos)
      return fail(Code::kInvalid, "the key is no path of a URL; '%', '?' and '#' are written %25, %3F and %23");
    out.key = std::move(*decoded);
  }
  if (!is_bucket(out.bucket)) return fail(Code::kInvalid, "'" + out.bucket + "' is no name of an S3 bucket");
  return out;
}

}  // namespace hydrant::source
