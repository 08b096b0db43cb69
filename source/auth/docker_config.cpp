#include "source/auth/docker_config.h"

#include <nlohmann/json.hpp>

#include "source/auth/base64.h"
#include "source/auth/credential_helper.h"

namespace hydrant::source {

namespace {

using Json = nlohmann::json;

constexpr size_t kMaxConfig = 1 << 20;
constexpr size_t kMaxEntries = 4096;

// The registry a key stands for: "https://index.docker.io/v1/" is docker.io, "https://r.example:5000/v2/" is
// "r.example:5000". `path` gets that of a key that covers only some repositories (podman has those).
std::string registry_of(std::string key, std::string& path) {
  bool is_url = false;
  if (auto scheme = key.find("://"); scheme != key.npos) {
    key.erase(0, scheme + 3);
    is_url = true;
  }
  if (auto slash = key.find('/'); slash != key.npos) {
    auto rest = key.substr(slash);
    if (!is_url && rest != "/" && rest != "/v1/" && rest != "/v2/" && rest != "/v1" && rest != "/v2") path = rest;
    while (path.ends_with('/')) path.pop_back();
    key.erase(slash);
  }
  if (key == "index.docker.io" || key == "registry-1.docker.io") return "docker.io";
  return key;
}

// Empty for a key that covers only some repositories.
std::string registry_of(const std::string& key) {
  std::string path;
  auto registry = registry_of(key, path);
  return path.empty() ? registry : std::string();
}

std::string text_field(const Json& json, const char* name) {
  auto found = json.find(name);
  return found != json.end() && found->is_string() ? found->get<std::string>() : std::string();
}

Result<Credentials> credentials_of(const Json& entry, const std::string& registry) {
  Credentials out{text_field(entry, "username"), text_field(entry, "password"), text_field(entry, "identitytoken")};
  if (auto packed = text_field(entry, "auth"); !packed.empty()) {
    auto plain = base64_decode(packed);
    auto colon = plain ? plain->find(':') : std::string::npos;
    if (colon == std::string::npos)
      return fail(Code::kInvalid, "docker config: auth of " + registry + " is not base64 of NAME:PASSWORD");
    out.username = plain->substr(0, colon);
    // Some writers pad with zeros.
    out.password = plain->substr(colon + 1);
    while (out.password.ends_with('\0')) out.password.pop_back();
  }
  return out;
}

}  // namespace

Result<DockerConfig> DockerConfig::parse(std::string_view text) {
  DockerConfig out;
  if (text.empty()) return out;
  if (text.size() > kMaxConfig) return fail(Code::kInvalid, "docker config is larger than 1 MiB");
  Json json = Json::parse(text, nullptr, false);
  if (!json.is_object()) return fail(Code::kInvalid, "docker config is not a JSON object");
  if (auto auths = json.find("auths"); auths != json.end() && auths->is_object()) {
    if (auths->size() > kMaxEntries) return fail(Code::kInvalid, "docker config has too many entries");
    for (const auto& [key, entry] : auths->items()) {
      std::string path;
      auto registry = registry_of(key, path);
      if (registry.empty() || !entry.is_object()) continue;
      HYDRANT_TRY(Credentials credentials, credentials_of(entry, registry + path));
      if (!path.empty()) {
        if (!credentials.empty()) out.parts_.emplace(registry + path, std::move(credentials));
        continue;
      }
      out.raw_keys_.emplace(registry, key);
      // An empty entry says that a helper keeps them.
      if (!credentials.empty()) out.stored_.emplace(registry, std::move(credentials));
    }
  }
  if (auto helpers = json.find("credHelpers"); helpers != json.end() && helpers->is_object())
    for (const auto& [key, helper] : helpers->items()) {
      auto registry = registry_of(key);
      if (registry.empty() || !helper.is_string() || out.helpers_.size() >= kMaxEntries) continue;
      out.helpers_.emplace(registry, helper.get<std::string>());
      out.raw_keys_.insert_or_assign(registry, key);
    }
  out.default_helper_ = text_field(json, "credsStore");
  return out;
}

Result<Credentials> DockerConfig::find(const std::string& registry, const std::string& repository,
                                       Deadline deadline) const {
  const auto name = registry_of(registry);
  for (std::string part = name + "/" + repository; part.size() > name.size(); part.erase(part.rfind('/')))
    if (auto found = parts_.find(part); found != parts_.end()) return found->second;
  auto own = helpers_.find(name);
  const auto& helper = own != helpers_.end() ? own->second : default_helper_;
  if (!helper.empty()) {
    auto raw = raw_keys_.find(name);
    auto server = raw != raw_keys_.end() ? raw->second
                  : name == "docker.io"  ? std::string("https://index.docker.io/v1/")
                                         : name;
    HYDRANT_TRY(Credentials credentials, run_credential_helper(helper, server, deadline));
    if (!credentials.empty()) return credentials;
  }
  auto found = stored_.find(name);
  return found == stored_.end() ? Credentials{} : found->second;
}

}  // namespace hydrant::source
