// Where S3 is and with which keys, as AWS's own tools find it: environment variables, a web identity, the profile
// files.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "base/guarded.h"
#include "source/http/http_client.h"
#include "source/s3/signature.h"

namespace hydrant::source {

// A variable's value; empty: not set. Tests give their own.
using Environment = std::function<std::string(const std::string& name)>;
Environment process_environment();

struct S3Settings {
  std::string region = "us-east-1";
  std::string endpoint;     // "http://minio.example:9000"; empty: Amazon's, by region
  bool path_style = false;  // ENDPOINT/BUCKET/KEY rather than BUCKET.ENDPOINT/KEY
};

// From AWS_REGION, AWS_DEFAULT_REGION, AWS_ENDPOINT_URL_S3, AWS_ENDPOINT_URL and the profile. An endpoint of one's own
// is asked path-style unless the profile says addressing_style = virtual. kInvalid: a file or an endpoint is malformed.
Result<S3Settings> s3_settings(const Environment& environment);

// The keys: AWS_ACCESS_KEY_ID with AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN; else a web identity
// (AWS_WEB_IDENTITY_TOKEN_FILE and AWS_ROLE_ARN, or the same of the profile), exchanged at the token service and
// renewed before it expires; else the profile's (AWS_PROFILE, AWS_SHARED_CREDENTIALS_FILE, AWS_CONFIG_FILE).
// Thread-safe.
class AwsCredentials {
 public:
  AwsCredentials(std::shared_ptr<HttpClient> client, Environment environment, std::string region,
                 std::function<int64_t()> wall_clock);

  // Empty keys: there are none, requests go unsigned. Looked up again when they are about to expire, and where they
  // are `refused` and more than a second old.
  Result<AwsKeys> keys(const Patience& patience, bool refused = false);

 private:
  struct Found {
    AwsKeys keys;
    int64_t found_at = 0;
    int64_t renew_at = 0;  // seconds since 1970
    int64_t expires_at = 0;
  };
  Result<Found> look_up(const Patience& patience);
  Result<Found> assume_role(const std::string& role, const std::string& token_file, const std::string& session,
                            const Patience& patience);

  const std::shared_ptr<HttpClient> client_;  // shared with the bucket
  const Environment environment_;
  const std::string region_;
  const std::function<int64_t()> wall_clock_;
  Guarded<std::optional<Found>> found_;
};

// "2026-11-25T06:00:00Z" in seconds since 1970; nothing when it is none.
std::optional<int64_t> parse_iso_time(const std::string& text);

}  // namespace hydrant::source
