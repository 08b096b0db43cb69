#include "cli/source_argument.h"

#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <vector>

#include "base/file.h"

namespace hydrant::cli {

namespace {

using Json = nlohmann::json;

constexpr size_t kMaxConfig = 512 << 10;

// Empty when it is not set.
std::string environment(const char* name) {
  const char* value = std::getenv(name);
  return value ? value : "";
}

// Where credentials may stand, the first before the others.
std::vector<std::string> credential_files() {
  std::vector<std::string> out;
  const auto home = environment("HOME");
  if (auto docker = environment("DOCKER_CONFIG"); !docker.empty()) {
    out.push_back(docker + "/config.json");
  } else if (!home.empty()) {
    out.push_back(home + "/.docker/config.json");
  }
  const auto runtime = environment("XDG_RUNTIME_DIR");
  out.push_back(runtime.empty() ? "/run/containers/" + std::to_string(::getuid()) + "/auth.json"
                                : runtime + "/containers/auth.json");
  if (!home.empty()) out.push_back(home + "/.config/containers/auth.json");
  return out;
}

// Adds what `config` does not say about a registry yet.
void add_missing(Json& config, const Json& more) {
  for (const char* key : {"auths", "credHelpers"})
    if (auto found = more.find(key); found != more.end() && found->is_object()) {
      if (!config[key].is_object()) config[key] = Json::object();
      for (const auto& [registry, entry] : found->items())
        if (!config[key].contains(registry)) config[key][registry] = entry;
    }
  if (auto helper = more.find("credsStore"); helper != more.end() && !config.contains("credsStore"))
    config["credsStore"] = *helper;
}

}  // namespace

Result<std::string> read_docker_config() {
  if (auto file = environment("REGISTRY_AUTH_FILE"); !file.empty()) return read_file(file, kMaxConfig);
  std::string only;
  std::optional<Json> merged;
  for (const auto& file : credential_files()) {
    auto text = read_file(file, kMaxConfig);
    if (!text && text.error().code == Code::kNotFound) continue;
    if (!text) return text;
    if (only.empty()) {
      only = std::move(*text);  // as it is: fetchd says what is wrong with it
      continue;
    }
    auto parsed = Json::parse(*text, nullptr, false);
    if (!parsed.is_object()) return fail(Code::kInvalid, file + " is not a JSON object; run podman login again");
    if (!merged) merged = Json::parse(only, nullptr, false);
    if (!merged->is_object()) return only;
    add_missing(*merged, parsed);
  }
  return merged ? merged->dump() : only;
}

std::string resolve_dir(const std::string& dir) {
  std::error_code error;
  auto real = std::filesystem::canonical(dir, error);
  if (!error) return real.string();
  auto plain = std::filesystem::absolute(dir, error).lexically_normal();
  if (!plain.has_filename() && plain.has_relative_path()) plain = plain.parent_path();
  return plain.string();
}

}  // namespace hydrant::cli
