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
constexpr auto kLoginLife = std::chrono::minutes(5);     // of credentials, until their helper is asked again
constexpr auto kYoung = std::chrono::seconds(1);         // asking again for what is no older gives the same
constexpr auto kRefusalLife = std::chrono::seconds(1);   // of a token service's no
constexpr auto kRenewalPause = std::chrono::seconds(5);  // after a renewal that failed while the token still holds

// One fixed header, for the token service alone.
class FixedAuthorization final : public Authorizer {
 public:
  explicit FixedAuthorization(std::string value) : value_(std::move(value)) {}
  Result<Authorization> authorize(const HttpRequest&) override { return Authorization{.value = value_}; }
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

RegistryAuth::RegistryAuth(std::shared_ptr<HttpClient> client, Place place, DockerConfig config, const Clock& clock)
    : client_(std::move(client)),
      registry_(std::move(place.registry)),
      repository_(std::move(place.repository)),
      origin_(std::move(place.origin)),
      host_(std::move(place.host)),
      config_(std::move(config)),
      clock_(clock) {
  if (!host_) return;
  auto elsewhere = std::make_shared<HostOptions>(*host_);
  elsewhere->headers.clear();
  elsewhere->skip_verify = false;
  elsewhere->client_cert.clear();
  elsewhere->client_key.clear();
  host_elsewhere_ = std::move(elsewhere);
}

Result<Authorization> RegistryAuth::authorize(const HttpRequest& request) {
  HYDRANT_TRY(std::string value, header(request.patience));
  return Authorization{.value = std::move(value)};
}

Result<std::string> RegistryAuth::header(const Patience& patience) {
  auto state = state_.lock();
  for (;;) {
    if (!state->bearer) return state->header;
    const auto now = clock_.now();
    const bool holds = state->token && now < state->token->expires_at;
    if (holds && (now < state->token->renew_at || state->asking)) return state->header;
    if (state->refusal && now < state->refused_until) return fail(*state->refusal);
    if (!state->asking) break;
    changed_.wait_until(state.native(), patience.stop, patience.deadline.at(), [&] { return !state->asking; });
    if (patience.stop.stop_requested()) return fail(Code::kCancelled, registry_ + ": cancelled");
    if (patience.deadline.passed()) return fail(Code::kTooSlow, registry_ + ": no token by the deadline");
  }

  state->asking = true;
  const auto challenge = *state->bearer;
  state.native().unlock();
  auto token = new_token(challenge, patience);
  state.native().lock();
  state->asking = false;
  changed_.notify_all();
  state->refusal.reset();
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
  if (token.error().code == Code::kUnauthorized) {
    state->refusal = token.error();
    state->refused_until = clock_.now() + kRefusalLife;
  }
  return fail(std::move(token.error()));
}

Result<RegistryAuth::Token> RegistryAuth::new_token(const proto::Challenge& challenge, const Patience& patience) {
  HYDRANT_TRY(Credentials known, credentials(patience, kLoginLife));
  auto token = ask_token_service(challenge, known, patience);
  if (token || token.error().code != Code::kUnauthorized) return token;
  HYDRANT_TRY(Credentials fresh, credentials(patience, Duration(0)));
  if (fresh == known) return token;
  return ask_token_service(challenge, fresh, patience);
}

Result<bool> RegistryAuth::refused(const std::string& used, const HttpHead& answer, const Patience& patience) {
  if (answer.status != 401 && answer.status != 403) return false;
  if (answer.status == 403) return forbidden(used, patience);
  std::optional<proto::Challenge> bearer, plain;
  for (auto& challenge : proto::parse_challenges(answer.header("www-authenticate"))) {
    if (challenge.scheme == "bearer" && !bearer && !challenge.param("realm").empty())
      bearer = std::move(challenge);
    else if (challenge.scheme == "basic" && !plain)
      plain = std::move(challenge);
  }
  if (!bearer && !plain) return false;
  HYDRANT_TRY(Credentials known, credentials(patience, kLoginLife));
  if (bearer) {
    auto state = state_.lock();
    if (state->header != used) return true;  // somebody else was refused, too, and got something new
    state->bearer = std::move(bearer);
    state->token.reset();
    state->header.clear();
    return true;
  }
  // What was just refused may have expired in the helper that gave it.
  if (used == basic(known)) {
    HYDRANT_TRY(known, credentials(patience, Duration(0)));
  }
  return offer_basic(used, known);
}

// 403 is what some registries answer to credentials that have expired, and all of them to an image that is not ours to
// read. Both are asked again once, with something new if there is any.
Result<bool> RegistryAuth::forbidden(const std::string& used, const Patience& patience) {
  if (used.empty()) return false;
  {
    auto state = state_.lock();
    if (state->header != used) return true;
    if (state->bearer) {
      if (!state->token || clock_.now() - state->token->asked_at < kYoung) return false;
      state->token.reset();
      state->header.clear();
      return true;
    }
  }
  HYDRANT_TRY(Credentials known, credentials(patience, Duration(0)));
  return offer_basic(used, known);
}

bool RegistryAuth::offer_basic(const std::string& used, const Credentials& known) {
  auto state = state_.lock();
  if (state->header != used) return true;
  if (known.username.empty()) return false;
  auto header = basic(known);
  if (header == used) return false;
  state->bearer.reset();
  state->token.reset();
  state->header = std::move(header);
  return true;
}

Result<Credentials> RegistryAuth::credentials(const Patience& patience, Duration max_age) {
  {
    auto state = state_.lock();
    // A helper that was asked a moment ago has nothing newer to say, however many readers are refused.
    if (state->login && clock_.now() - state->login->found_at <= std::max<Duration>(max_age, kYoung))
      return state->login->credentials;
  }
  // Outside the lock: a helper may run for seconds. Two threads that both ask get the same answer.
  auto found = config_.find(registry_, repository_, patience.deadline);
  auto state = state_.lock();
  if (!found && state->login) return state->login->credentials;
  if (!found) return fail(std::move(found.error()).in("credentials for " + registry_));
  state->login = Login{*found, clock_.now()};
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
  if (!origin_.starts_with("http://") && realm.starts_with("http://"))
    return fail(Code::kDenied, name + " speaks plain HTTP; credentials are not sent there");

  HttpRequest request{
      .url = realm, .headers = {}, .body = {}, .range = {}, .authorizer = nullptr, .patience = patience};
  // Token services mostly stand behind the same private authority as their registry.
  request.host = origin_of(realm) == origin_ ? host_ : host_elsewhere_;
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
  return Token{std::move(value), asked_at + life - ahead, asked_at + life, asked_at};
}

std::string RegistryAuth::way_out() {
  auto state = state_.lock();
  if (!state->login || state->login->credentials.empty())
    return registry_ + " needs credentials; run docker login " + registry_;
  const auto& user = state->login->credentials.username;
  return registry_ + " refuses the credentials" + (user.empty() ? "" : " of " + user) + "; run docker login " +
         registry_;
}

}  // namespace hydrant::source
