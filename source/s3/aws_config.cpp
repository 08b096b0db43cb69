#include "source/s3/aws_config.h"

#include <algorithm>
#include <cstdlib>
#include <ctime>
#include <limits>
#include <map>

#include "base/file.h"
#include "proto/s3_xml.h"

namespace hydrant::source {

namespace {

constexpr size_t kMaxFile = 1 << 20;
constexpr size_t kMaxToken = 32 << 10;
constexpr int64_t kRenewAhead = 300;  // seconds before keys expire
constexpr int64_t kReadAgain = 300;   // keys of files and variables, which may be rewritten
constexpr int64_t kYoung = 1;         // looking for keys again gives the same

using Section = std::map<std::string, std::string>;

std::string trim(std::string_view text) {
  while (!text.empty() && std::isspace(static_cast<unsigned char>(text.front()))) text.remove_prefix(1);
  while (!text.empty() && std::isspace(static_cast<unsigned char>(text.back()))) text.remove_suffix(1);
  return std::string(text);
}

// One section of an INI file. Settings nested below another ("s3 =", then indented lines) count as the section's own.
Section parse_section(std::string_view text, const std::string& wanted) {
  Section out;
  bool inside = false;
  while (!text.empty()) {
    auto line = trim(text.substr(0, text.find('\n')));
    text.remove_prefix(std::min(text.size(), text.find('\n') == text.npos ? text.size() : text.find('\n') + 1));
    if (line.empty() || line[0] == '#' || line[0] == ';') continue;
    if (line[0] == '[') {
      inside = trim(line.substr(1, line.find(']') - 1)) == wanted;
      continue;
    }
    auto equals = line.find('=');
    if (inside && equals != line.npos) out[trim(line.substr(0, equals))] = trim(line.substr(equals + 1));
  }
  return out;
}

// The profile: what the credentials file says of it comes before what the config file says.
Result<Section> profile(const Environment& environment) {
  auto name = environment("AWS_PROFILE");
  const bool named = !name.empty();
  if (!named) name = "default";
  const auto home = environment("HOME");
  auto path = [&](const char* variable, const char* file) {
    auto set = environment(variable);
    return !set.empty() || home.empty() ? set : home + "/.aws/" + file;
  };
  auto load = [&](const std::string& file, const std::string& section) -> Result<Section> {
    if (file.empty()) return Section();
    auto text = read_file(file, kMaxFile);
    if (text) return parse_section(*text, section);
    if (text.error().code == Code::kNotFound) return Section();
    return fail(std::move(text.error()));
  };
  HYDRANT_TRY(Section out, load(path("AWS_SHARED_CREDENTIALS_FILE", "credentials"), name));
  HYDRANT_TRY(Section config, load(path("AWS_CONFIG_FILE", "config"), name == "default" ? name : "profile " + name));
  out.merge(config);
  if (named && out.empty()) return fail(Code::kInvalid, "AWS profile '" + name + "' is in neither file");
  return out;
}

std::string first_of(std::initializer_list<std::string> values) {
  for (const auto& value : values)
    if (!value.empty()) return value;
  return {};
}

// What may stand in a header and in a host name.
bool is_plain(const std::string& text) {
  return std::all_of(text.begin(), text.end(), [](unsigned char c) { return c > 0x20 && c < 0x7f; });
}

bool is_region(const std::string& text) {
  return !text.empty() && text.size() <= 64 &&
         std::all_of(text.begin(), text.end(), [](unsigned char c) { return std::isalnum(c) || c == '-' || c == '_'; });
}

}  // namespace

Environment process_environment() {
  return [](const std::string& name) {
    const char* value = std::getenv(name.c_str());
    return std::string(value ? value : "");
  };
}

Result<S3Settings> s3_settings(const Environment& environment) {
  HYDRANT_TRY(Section file, profile(environment));
  S3Settings out;
  out.region = first_of({environment("AWS_REGION"), environment("AWS_DEFAULT_REGION"), file["region"], out.region});
  out.endpoint = first_of({environment("AWS_ENDPOINT_URL_S3"), environment("AWS_ENDPOINT_URL"), file["endpoint_url"]});
  while (out.endpoint.ends_with('/')) out.endpoint.pop_back();
  if (!is_region(out.region)) return fail(Code::kInvalid, "the AWS region is malformed");
  if (!out.endpoint.empty() && (origin_of(out.endpoint).empty() || !is_plain(out.endpoint) ||
                                !(out.endpoint.starts_with("http://") || out.endpoint.starts_with("https://"))))
    return fail(Code::kInvalid, "the S3 endpoint is no http:// or https:// URL");
  const auto style = file["addressing_style"];
  out.path_style = style == "path" || (style != "virtual" && !out.endpoint.empty());
  return out;
}

std::optional<int64_t> parse_iso_time(const std::string& text) {
  tm parts{};
  const char* end = ::strptime(text.c_str(), "%Y-%m-%dT%H:%M:%S", &parts);
  if (!end) return std::nullopt;
  return ::timegm(&parts);
}

AwsCredentials::AwsCredentials(std::shared_ptr<HttpClient> client, Environment environment, std::string region,
                               std::function<int64_t()> wall_clock)
    : client_(std::move(client)),
      environment_(std::move(environment)),
      region_(std::move(region)),
      wall_clock_(std::move(wall_clock)) {}

Result<AwsKeys> AwsCredentials::keys(const Patience& patience, bool refused) {
  const auto now = wall_clock_();
  std::optional<Found> known = *found_.lock();
  if (known && now < known->renew_at && !(refused && now - known->found_at > kYoung)) return known->keys;
  // Outside the lock. Two threads that both look find the same, or both get keys that hold.
  auto found = look_up(patience);
  if (!found) {
    // A renewal ahead of time may fail without anybody noticing.
    if (known && now < known->expires_at) return known->keys;
    return fail(std::move(found.error()));
  }
  *found_.lock() = *found;
  return found->keys;
}

Result<AwsCredentials::Found> AwsCredentials::look_up(const Patience& patience) {
  const auto now = wall_clock_();
  Found out{.keys = {environment_("AWS_ACCESS_KEY_ID"), environment_("AWS_SECRET_ACCESS_KEY"),
                     environment_("AWS_SESSION_TOKEN")},
            .found_at = now,
            .renew_at = now + kReadAgain,
            .expires_at = std::numeric_limits<int64_t>::max()};
  if (out.keys.empty()) {
    HYDRANT_TRY(Section file, profile(environment_));
    const auto token_file = first_of({environment_("AWS_WEB_IDENTITY_TOKEN_FILE"), file["web_identity_token_file"]});
    const auto role = first_of({environment_("AWS_ROLE_ARN"), file["role_arn"]});
    if (!token_file.empty() && !role.empty())
      return assume_role(role, token_file,
                         first_of({environment_("AWS_ROLE_SESSION_NAME"), file["role_session_name"], "hydrant"}),
                         patience);
    out.keys = {file["aws_access_key_id"], file["aws_secret_access_key"], file["aws_session_token"]};
  }
  if (!is_plain(out.keys.access_key) || !is_plain(out.keys.session_token))
    return fail(Code::kInvalid, "the AWS access key is malformed");
  return out;
}

Result<AwsCredentials::Found> AwsCredentials::assume_role(const std::string& role, const std::string& token_file,
                                                          const std::string& session, const Patience& patience) {
  HYDRANT_TRY(std::string token, read_file(token_file, kMaxToken));
  auto endpoint = first_of({environment_("AWS_ENDPOINT_URL_STS"), "https://sts." + region_ + ".amazonaws.com"});
  const auto now = wall_clock_();
  auto answer = client_->get(
      {.method = "POST",
       .url = endpoint + "/",
       .headers = {"Content-Type: application/x-www-form-urlencoded"},
       .body = "Action=AssumeRoleWithWebIdentity&Version=2011-06-15&RoleArn=" + aws_escape(role, false) +
               "&RoleSessionName=" + aws_escape(session, false) + "&WebIdentityToken=" + aws_escape(trim(token), false),
       .range = {},
       .authorizer = nullptr,
       .patience = patience},
      1 << 20);
  if (!answer) return fail(std::move(answer.error()).in("AWS token service"));
  if (answer->head.status != 200) {
    auto error = status_error(answer->head, "AWS token service " + origin_of(endpoint) + " for role " + role);
    if (answer->head.status == 400 || answer->head.status == 403) error.code = Code::kUnauthorized;
    return fail(std::move(error));
  }
  auto text = [&](const char* tag) { return proto::xml_text(answer->body, tag).value_or(""); };
  Found out{.keys = {text("AccessKeyId"), text("SecretAccessKey"), text("SessionToken")},
            .found_at = now,
            .renew_at = 0,
            .expires_at = parse_iso_time(text("Expiration")).value_or(0)};
  if (out.keys.empty() || out.expires_at <= 0 || !is_plain(out.keys.access_key) || !is_plain(out.keys.session_token))
    return fail(Code::kCorrupt, "AWS token service " + origin_of(endpoint) + ": answer holds no usable keys");
  // Half of it for keys that live shorter than the time ahead.
  out.renew_at = std::max(out.expires_at - kRenewAhead, now + (out.expires_at - now) / 2);
  return out;
}

}  // namespace hydrant::source
