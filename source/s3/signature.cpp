#include "source/s3/signature.h"

#include <openssl/hmac.h>

#include <algorithm>
#include <ctime>

#include "base/check.h"
#include "base/digest.h"

namespace hydrant::source {

namespace {

std::string hmac(std::string_view key, std::string_view text) {
  unsigned char out[EVP_MAX_MD_SIZE];
  unsigned size = 0;
  HYDRANT_CHECK(::HMAC(EVP_sha256(), key.data(), static_cast<int>(key.size()),
                       reinterpret_cast<const unsigned char*>(text.data()), text.size(), out, &size),
                "HMAC-SHA-256 fails");
  return std::string(reinterpret_cast<char*>(out), size);
}

std::string format_time(int64_t time) {
  const auto seconds = static_cast<time_t>(time);
  tm parts{};
  ::gmtime_r(&seconds, &parts);
  char out[32];
  out[std::strftime(out, sizeof out, "%Y%m%dT%H%M%SZ", &parts)] = '\0';
  return out;
}

// Parameters in order, each with a "=".
std::string canonical_query(std::string_view query) {
  std::vector<std::string> parts;
  while (!query.empty()) {
    auto one = std::string(query.substr(0, query.find('&')));
    query.remove_prefix(std::min(query.size(), one.size() + 1));
    if (one.empty()) continue;
    if (one.find('=') == one.npos) one += '=';
    parts.push_back(std::move(one));
  }
  std::sort(parts.begin(), parts.end());
  std::string out;
  for (const auto& part : parts) out += (out.empty() ? "" : "&") + part;
  return out;
}

}  // namespace

std::string aws_escape(std::string_view text, bool is_path) {
  static constexpr char kDigits[] = "0123456789ABCDEF";
  std::string out;
  for (char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    const bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
                       c == '.' || c == '_' || c == '~' || (is_path && c == '/');
    if (plain)
      out += c;
    else
      out += {'%', kDigits[byte >> 4], kDigits[byte & 15]};
  }
  return out;
}

Authorization sign_v4(const AwsKeys& keys, const std::string& region, int64_t time, const std::string& url,
                      std::map<std::string, std::string> headers) {
  const auto empty_hash = sha256({}).hex();
  const auto stamp = format_time(time), day = stamp.substr(0, 8);
  const auto origin = url.substr(0, url.find('/', url.find("://") + 3));
  auto path = url.substr(origin.size()), host = origin.substr(origin.find("://") + 3);
  std::string query;
  if (auto mark = path.find('?'); mark != path.npos) {
    query = path.substr(mark + 1);
    path.erase(mark);
  }
  if (path.empty()) path = "/";
  // As libcurl writes the Host header: without a port that the scheme implies.
  const std::string_view implied = url.starts_with("https:") ? ":443" : ":80";
  if (host.ends_with(implied)) host.erase(host.size() - implied.size());

  Authorization out;
  headers["host"] = host;
  auto add = [&](const std::string& name, const std::string& value) {
    headers[name] = value;
    out.headers.push_back(name + ": " + value);
  };
  add("x-amz-content-sha256", empty_hash);
  add("x-amz-date", stamp);
  if (!keys.session_token.empty()) add("x-amz-security-token", keys.session_token);

  std::string lines, names;
  for (const auto& [name, value] : headers) {
    lines += name + ":" + value + "\n";
    names += (names.empty() ? "" : ";") + name;
  }
  const auto request = "GET\n" + path + "\n" + canonical_query(query) + "\n" + lines + "\n" + names + "\n" + empty_hash;
  const auto scope = day + "/" + region + "/s3/aws4_request";
  const auto to_sign = "AWS4-HMAC-SHA256\n" + stamp + "\n" + scope + "\n" + sha256(as_bytes(request)).hex();
  auto key = hmac("AWS4" + keys.secret_key, day);
  for (const auto& part : {region, std::string("s3"), std::string("aws4_request")}) key = hmac(key, part);
  const auto signature = hmac(key, to_sign);
  out.value = "AWS4-HMAC-SHA256 Credential=" + keys.access_key + "/" + scope + ", SignedHeaders=" + names +
              ", Signature=" + to_hex(as_bytes(signature));
  return out;
}

}  // namespace hydrant::source
