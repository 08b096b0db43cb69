#include "tests/oracle/root.h"

#include <unistd.h>

#include <filesystem>

#include "proto/cachefiles_name.h"

namespace hydrant::oracle {
namespace fs = std::filesystem;
namespace {

constexpr const char* kDomains[] = {"d", "e"};
constexpr const char* kImages[] = {"a", "b", "c", "p", "q", "s", "t"};
constexpr const char* kDevices[] = {"x", "y"};

}  // namespace

std::vector<std::pair<std::string, std::string>> object_paths(const std::string& root) {
  std::vector<std::pair<std::string, std::string>> out;
  auto add = [&](const std::string& volume, const std::string& object) {
    auto key = std::as_bytes(std::span(object.data(), object.size()));
    auto index = static_cast<uint8_t>(proto::hash_cookie(proto::hash_volume(volume), key));
    std::string directory = proto::volume_directory(volume);
    out.emplace_back(directory + "/D" + object,
                     root + "/cache/" + directory + "/" + proto::fanout_directory(index) + "/D" + object);
  };
  for (std::string image : kImages) {
    add("erofs," + image, image);
    for (auto device : kDevices) add("erofs," + image, device);
    for (std::string domain : kDomains) add("erofs," + domain, image);
  }
  for (std::string domain : kDomains)
    for (auto device : kDevices) add("erofs," + domain, device);
  return out;
}

void empty_root(const std::string& root) {
  fs::create_directories(root);
  for (auto& entry : fs::directory_iterator(root))
    if (entry.path().filename() != "cache" || !entry.is_directory()) fs::remove_all(entry.path());
  if (!fs::exists(root + "/cache")) return;
  for (auto& entry : fs::directory_iterator(root + "/cache"))
    if (!entry.is_directory() || entry.path().filename().string().rfind("Ierofs,", 0) != 0)
      fs::remove_all(entry.path());
  std::error_code gone;
  for (auto& [name, path] : object_paths(root)) fs::remove_all(path, gone);
}

}  // namespace hydrant::oracle
