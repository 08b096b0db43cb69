// How one repository's requests are authorized: nothing, basic, or a bearer token from the registry's token service
// (distribution's token authentication; OAuth2 refresh for identity tokens). Which of them, the registry's 401 says.
#pragma once

#include <condition_variable>
#include <memory>
#include <optional>
#include <string>

#include "base/guarded.h"
#include "proto/http_header.h"
#include "source/auth/docker_config.h"
#include "source/http/http_client.h"

namespace hydrant::source {

// Thread-safe. One thread asks the token service; those with a token that still holds go on with it meanwhile, the
// others wait. No lock is held across a request.
class RegistryAuth final : public Authorizer {
 public:
  struct Place {
    std::string registry;  // whose credentials are meant
    std::string repository;
    std::string origin;                       // "https://registry.example:5000"
    std::shared_ptr<const HostOptions> host;  // of that origin; may be null
  };
  RegistryAuth(std::shared_ptr<HttpClient> client, Place place, DockerConfig config, const Clock& clock);

  Result<Authorization> authorize(const HttpRequest& request) override;
  Result<bool> refused(const std::string& used, const HttpHead& answer, const Patience& patience) override;

  // For the message about a 401: what was tried and what would help.
  std::string way_out();

 private:
  struct Token {
    std::string value;
    Instant renew_at;  // a good while before it expires
    Instant expires_at;
    Instant asked_at;
  };
  struct Login {
    Credentials credentials;
    Instant found_at;
  };
  struct State {
    std::optional<proto::Challenge> bearer;  // what the registry asked for
    std::string header;                      // "Basic …", "Bearer …" or empty; what authorization() answers
    std::optional<Token> token;              // behind a "Bearer" header
    bool asking = false;                     // somebody is at the token service
    std::optional<Login> login;              // looked up at the first refusal, anew when they are old or refused
    std::optional<Error> refusal;            // of the token service to these credentials; forgotten at refused_until
    Instant refused_until;
  };
  using Lock = Guarded<State>::Lock;

  Result<std::string> header(const Patience& patience);
  // What helpers give expires, and files are rewritten: credentials are looked up anew when they are older than
  // `max_age`. A lookup that fails leaves the old ones in use.
  Result<Credentials> credentials(const Patience& patience, Duration max_age);
  Result<bool> forbidden(const std::string& used, const Patience& patience);
  bool offer_basic(const std::string& used, const Credentials& known);
  Result<Token> new_token(const proto::Challenge& challenge, const Patience& patience);
  Result<Token> ask_token_service(const proto::Challenge& challenge, const Credentials& credentials,
                                  const Patience& patience);

  const std::shared_ptr<HttpClient> client_;  // shared with the store
  const std::string registry_, repository_, origin_;
  const std::shared_ptr<const HostOptions> host_;
  std::shared_ptr<const HostOptions> host_elsewhere_;  // without headers, client certificate and blind trust
  const DockerConfig config_;
  const Clock& clock_;
  Guarded<State> state_;
  std::condition_variable_any changed_;
};

}  // namespace hydrant::source
