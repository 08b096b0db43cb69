#include "source/registry/registry_auth.h"

#include <algorithm>
#include <cctype>
#include <nlohmann/json.hpp>

#include "proto/oci.h"
#include "proto/reference.h"
#include "source/auth/base64.h"

namespace hydrant::source {

namespace {

constexpr size_t kMaxAnswer = 1 << 20;
constexpr size_t kMaxToken = 32 << 10;
constexpr auto kDefaultLife = std::chrono::seconds(60);  // of a token that does not say, by the specification
constexpr auto kLongestLife = std::chrono::hours(24);
constexpr auto kRenewalPause = std::chrono::seconds(5);  // after a renewal that failed while the token still holds

// One fixed header, for the token service alone.
class FixedAuthorization final : public Authorizer {
 public:
  explicit FixedAuthorization(std::string value) : value_(std::move(value)) {}
  Result<std::string> authorization(const Patience&) override { return value_; }
  Result<bool> refused(const std::string&, const HttpHead&, const Patience&) override { return false; }

 private:
  const std::string value_;
};

std::string escape(std::string_view text) {
  static constexpr char kDigits[] = "0123456789ABCDEF";
  std::string out;
  for (char c : text) {
    auto byte = static_cast<unsigned char>(c);
    if (std::isalnum(byte) || c == '-' || c == '.' || c == '_' || c == '~')
      out += c;
    else
      out += {'%', kDigits[byte >> 4], kDigits[byte & 15]};
  }
  return out;
}

// "a b" of a challenge is two scopes, and token services expect a parameter for each.
std::string scope_parameters(std::string_view scopes) {
  std::string out;
  while (!scopes.empty()) {
    auto one = scopes.substr(0, scopes.find(' '));
    if (!one.empty()) out += "&scope=" + escape(one);
    scopes.remove_prefix(std::min(scopes.size(), one.size() + 1));
  }
  return out;
}

std::string basic(const Credentials& credentials) {
  return "Basic " + base64_encode(credentials.username + ":" + credentials.password);
}

bool is_visible(const std::string& text) {
  return std::all_of(text.begin(), text.end(), [](unsigned char c) { return c > 0x20 && c < 0x7f; });
}

}  // namespace

RegistryAuth::RegistryAuth(std::shared_ptr<HttpClient> client, std::string registry, std::string repository,
                           bool plain_http, DockerConfig config, const Clock& clock)
    : client_(std::move(client)),
      registry_(std::move(registry)),
      repository_(std::move(repository)),
      plain_http_(plain_http),
      config_(std::move(config)),
      clock_(clock) {}

Result<std::string> RegistryAuth::authorization(const Patience& patience) {
  auto state = state_.lock();
  for (;;) {
    if (!state->bearer) return state->header;
    const auto now = clock_.now();
    const bool holds = state->token && now < state->token->expires_at;
    if (holds && (now < state->token->renew_at || state->asking)) return state->header;
    if (!state->asking) break;
    changed_.wait_until(state.native(), patience.stop, patience.deadline.at(), [&] { return !state->asking; });
    if (patience.stop.stop_requested()) return fail(Code::kCancelled, registry_ + ": cancelled");
    if (patience.deadline.passed()) return fail(Code::kTooSlow, registry_ + ": no token by the deadline");
  }

  state->asking = true;
  const auto challenge = *state->bearer;
  const auto credentials = state->credentials.value_or(Credentials{});
  state.native().unlock();
  auto token = ask_token_service(challenge, credentials, patience);
  state.native().lock();
  state->asking = false;
  changed_.notify_all();
  if (token) {
    state->header = "Bearer " + token->value;
    state->token = std::move(*token);
    return state->header;
  }
  // A renewal ahead of time may fail without anybody noticing; the old token goes on while it holds.
  if (state->token && clock_.now() < state->token->expires_at) {
    state->token->renew_at = clock_.now() + kRenewalPause;
    return state->header;
  }
  return fail(std::move(token.error()));
}

Result<bool> RegistryAuth::refused(const std::string& used, const HttpHead& answer, const Patience& patience) {
  std::optional<proto::Challenge> bearer, plain;
  for (auto& challenge : proto::parse_challenges(answer.header("www-authenticate"))) {
    if (challenge.scheme == "bearer" && !bearer && !challenge.param("realm").empty())
      bearer = std::move(challenge);
    else if (challenge.scheme == "basic" && !plain)
      plain = std::move(challenge);
  }
  if (!bearer && !plain) return false;
  HYDRANT_TRY(Credentials known, credentials(patience));

  auto state = state_.lock();
  if (state->header != used) return true;  // somebody else was refused, too, and got something new
  if (bearer) {
    state->bearer = std::move(bearer);
    state->token.reset();
    state->header.clear();
    return true;
  }
  if (known.username.empty()) return false;
  auto header = basic(known);
  if (header == used) return false;
  state->bearer.reset();
  state->token.reset();
  state->header = std::move(header);
  return true;
}

Result<Credentials> RegistryAuth::credentials(const Patience& patience) {
  if (auto state = state_.lock(); state->credentials) return *state->credentials;
  // Outside the lock: a helper may run for seconds. Two threads that both ask get the same answer.
  auto found = config_.find(registry_, patience.deadline);
  if (!found) return fail(std::move(found.error()).in("credentials for " + registry_));
  state_.lock()->credentials = *found;
  return found;
}

Result<RegistryAuth::Token> RegistryAuth::ask_token_service(const proto::Challenge& challenge,
                                                            const Credentials& credentials, const Patience& patience) {
  const auto realm = challenge.param("realm"), service = challenge.param("service");
  auto scope = challenge.param("scope");
  if (scope.empty()) scope = "repository:" + repository_ + ":pull";
  const auto name = "token service " + origin_of(realm) + " of " + registry_;
  if (origin_of(realm).empty() || !(realm.starts_with("http://") || realm.starts_with("https://")))
    return fail(Code::kCorrupt, registry_ + " names a token service with a malformed URL");
  if (!plain_http_ && realm.starts_with("http://"))
    return fail(Code::kDenied, name + " speaks plain HTTP; credentials are not sent there");

  HttpRequest request{
      .url = realm, .headers = {}, .body = {}, .range = {}, .authorizer = nullptr, .patience = patience};
  std::optional<FixedAuthorization> authorization;
  if (!credentials.identity_token.empty()) {
    request.method = "POST";
    request.headers = {"Content-Type: application/x-www-form-urlencoded"};
    request.body = "grant_type=refresh_token&client_id=hydrant&service=" + escape(service) + "&scope=" + escape(scope) +
                   "&refresh_token=" + escape(credentials.identity_token);
  } else {
    request.url +=
        std::string(realm.find('?') == realm.npos ? "?" : "&") + "service=" + escape(service) + scope_parameters(scope);
    if (!credentials.username.empty()) request.authorizer = &authorization.emplace(basic(credentials));
  }

  const auto asked_at = clock_.now();  // a token's life is counted from before its birth: the safe side
  auto answer = client_->get(request, kMaxAnswer);
  if (!answer) return fail(std::move(answer.error()).in(name));
  const int status = answer->head.status;
  if (status == 401 || status == 403)
    return fail(Code::kUnauthorized,
                credentials.empty() ? registry_ + " gives no token without credentials; run docker login " + registry_
                                    : registry_ + " refuses the credentials" +
                                          (credentials.username.empty() ? "" : " of " + credentials.username) +
                                          "; run docker login " + registry_);
  if (status != 200) return fail(status_error(answer->head, name));

  auto json = nlohmann::json::parse(answer->body, nullptr, false);
  if (!json.is_object()) return fail(Code::kCorrupt, name + ": answer is not a JSON object");
  std::string value;
  for (const char* field : {"token", "access_token"})
    if (auto found = json.find(field); value.empty() && found != json.end() && found->is_string())
      value = found->get<std::string>();
  if (value.empty() || value.size() > kMaxToken || !is_visible(value))
    return fail(Code::kCorrupt, name + ": answer holds no usable token");
  std::chrono::seconds life = kDefaultLife;
  if (auto found = json.find("expires_in"); found != json.end() && found->is_number_integer())
    life =
        std::chrono::seconds(std::clamp<int64_t>(found->get<int64_t>(), 1, std::chrono::seconds(kLongestLife).count()));
  const Duration ahead = std::min<Duration>(Duration(life) / 4, std::chrono::seconds(30));
  return Token{std::move(value), asked_at + life - ahead, asked_at + life};
}

std::string RegistryAuth::way_out() {
  auto state = state_.lock();
  if (!state->credentials || state->credentials->empty())
    return registry_ + " needs credentials; run docker login " + registry_;
  const auto& user = state->credentials->username;
  return registry_ + " refuses the credentials" + (user.empty() ? "" : " of " + user) + "; run docker login " +
         registry_;
}

}  // namespace hydrant::source
