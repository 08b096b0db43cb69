// Credentials out of docker's config.json (podman's auth.json has the same shape).
#pragma once

#include <map>
#include <string>
#include <string_view>

#include "base/clock.h"
#include "base/error.h"

namespace hydrant::source {

struct Credentials {
  std::string username;
  std::string password;
  std::string identity_token;  // an OAuth2 refresh token; replaces the password

  bool empty() const { return username.empty() && identity_token.empty(); }
  bool operator==(const Credentials&) const = default;
};

// A value; immutable after parse, so thread-safe.
class DockerConfig {
 public:
  DockerConfig() = default;  // anonymous everywhere

  // `json`: the text of config.json, at most 1 MiB; empty text is an empty config. kInvalid never quotes the text.
  static Result<DockerConfig> parse(std::string_view json);

  // For "registry.example:5000" or "docker.io"; empty credentials when it has none. A credential helper, which comes
  // before stored credentials as in docker, is run for at most 10 s; a helper that fails is an error that names it.
  // Entries for a part of a registry, as podman has them, come first for the repositories below it, the longest before
  // others.
  Result<Credentials> find(const std::string& registry, const std::string& repository, Deadline deadline) const;

 private:
  std::map<std::string, Credentials> stored_;    // key: normalized registry host
  std::map<std::string, Credentials> parts_;     // key: normalized registry host/path
  std::map<std::string, std::string> helpers_;   // registry host → X of docker-credential-X
  std::map<std::string, std::string> raw_keys_;  // registry host → the key as the file has it, which helpers expect
  std::string default_helper_;
};

}  // namespace hydrant::source
