#include "cli/source_argument.h"

#include <cstdlib>
#include <filesystem>

#include "base/file.h"

namespace hydrant::cli {

Result<std::string> read_docker_config() {
  std::string path;
  if (const char* dir = std::getenv("DOCKER_CONFIG"); dir && *dir) {
    path = std::string(dir) + "/config.json";
  } else if (const char* home = std::getenv("HOME"); home && *home) {
    path = std::string(home) + "/.docker/config.json";
  } else {
    return std::string();
  }
  auto text = read_file(path, 512 << 10);
  if (!text && text.error().code == Code::kNotFound) return std::string();
  return text;
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
