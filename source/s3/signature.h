// AWS Signature Version 4 in a request's headers, as S3 and those who speak its protocol check it.
#pragma once

#include <map>
#include <string>

#include "source/http/http_client.h"

namespace hydrant::source {

struct AwsKeys {
  std::string access_key;
  std::string secret_key;
  std::string session_token;  // of temporary keys; may be empty

  bool empty() const { return access_key.empty() || secret_key.empty(); }
  bool operator==(const AwsKeys&) const = default;
};

// Of a GET without a body. `time`: seconds since 1970. `headers`: more headers to sign, names in lower case. Path and
// query of `url` must be encoded as aws_escape does, since they are signed as they stand.
Authorization sign_v4(const AwsKeys& keys, const std::string& region, int64_t time, const std::string& url,
                      std::map<std::string, std::string> headers = {});

// Percent-encodes all but letters, digits and "-._~", and "/" where it is part of a path.
std::string aws_escape(std::string_view text, bool is_path);

}  // namespace hydrant::source
