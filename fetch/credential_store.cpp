#include "fetch/credential_store.h"

#include <nlohmann/json.hpp>

#include "base/file.h"
#include "base/log.h"

namespace hydrant::fetch {

using nlohmann::json;

constexpr int kVersion = 1;

Result<std::unique_ptr<CredentialStore>> CredentialStore::open(std::string path) {
  std::unique_ptr<CredentialStore> store(new CredentialStore(path));
  auto text = read_file(path);
  if (!text && text.error().code == Code::kNotFound) return store;
  if (!text) return fail(std::move(text).error());
  // Each mount brings its own again; until then what is cached is served, and so is everything else.
  auto broken = [&]() -> Result<std::unique_ptr<CredentialStore>> {
    log::error("credentials.damaged", {{"path", path}, {"way_out", "mount again: it brings its credentials"}});
    store->configs_.clear();
    return std::move(store);
  };
  json document = json::parse(*text, nullptr, /*allow_exceptions=*/false);
  if (!document.is_object() || !document.contains("version") || !document["version"].is_number_integer() ||
      !document.contains("registries") || !document["registries"].is_object())
    return broken();
  if (document["version"].get<int64_t>() > kVersion)
    return fail(Code::kUnsupported, path + " was made by a newer hydrant-fetchd");
  for (const auto& [registry, config] : document["registries"].items()) {
    if (!config.is_string()) return broken();
    store->configs_[registry] = config.get<std::string>();
  }
  return store;
}

Result<bool> CredentialStore::put(const std::string& registry, const std::string& docker_config) {
  HYDRANT_TRY_VOID(source::DockerConfig::parse(docker_config));
  std::lock_guard lock(mutex_);
  auto configs = configs_;
  auto& known = configs[registry];
  if (known == docker_config) return false;
  known = docker_config;
  json document = {{"version", kVersion}, {"registries", configs}};
  std::string text = document.dump(-1, ' ', false, json::error_handler_t::replace);
  HYDRANT_TRY_VOID(write_file_atomic(path_, as_bytes(text), 0600));
  configs_ = std::move(configs);  // not before: a put that failed is repeated by its caller, and must write then
  return true;
}

Result<source::DockerConfig> CredentialStore::find(const std::string& registry) const {
  std::lock_guard lock(mutex_);
  auto found = configs_.find(registry);
  if (found == configs_.end()) return source::DockerConfig();
  return source::DockerConfig::parse(found->second);
}

}  // namespace hydrant::fetch
