#include "source/hosts/host_directory.h"

#include <algorithm>
#include <filesystem>
#include <optional>

#include "base/file.h"
#include "source/hosts/hosts_file.h"

namespace hydrant::source {

namespace fs = std::filesystem;

namespace {

constexpr size_t kMaxFile = 1 << 20;
constexpr size_t kMaxKnown = 64;
constexpr auto kMirrorConnectTimeout = std::chrono::seconds(3);  // others have it as well

// docker's way: what lies there is the registry's own authority, and our certificate for it.
Result<HostEntry> read_certificates(const fs::path& directory) {
  HostEntry entry;
  std::error_code error;
  std::vector<fs::path> files;
  for (fs::directory_iterator at(directory, error), end; !error && at != end; at.increment(error))
    files.push_back(at->path());
  if (error) return fail_sys(error.value(), directory.string());
  std::ranges::sort(files);
  for (const auto& file : files) {
    if (file.extension() == ".crt") entry.ca_files.push_back(file.string());
    if (file.extension() == ".cert") {
      auto key = file;
      entry.client_certs.emplace_back(file.string(), key.replace_extension(".key").string());
    }
  }
  return entry;
}

Result<RegistryPlace> place_of(HostEntry entry, const fs::path& directory) {
  auto options = std::move(entry.options);
  for (const auto& file : entry.ca_files) {
    HYDRANT_TRY(auto pem, read_file((directory / file).string(), kMaxFile));
    options.ca_pem += pem + "\n";
  }
  // As in containerd's own client the server would choose; libcurl offers one.
  if (!entry.client_certs.empty()) {
    options.client_cert = (directory / entry.client_certs.front().first).string();
    options.client_key = (directory / entry.client_certs.front().second).string();
    for (const auto& file : {options.client_cert, options.client_key}) HYDRANT_TRY_VOID(open_file(file, O_RDONLY));
  }
  return RegistryPlace{std::move(entry.url), entry.pull, entry.resolve, entry.push,
                       std::make_shared<const HostOptions>(std::move(options))};
}

Result<RegistryPlaces> read_places(const fs::path& directory) {
  const auto path = (directory / "hosts.toml").string();
  auto text = read_file(path, kMaxFile);
  HostsFile file;
  if (text) {
    auto parsed = parse_hosts_file(*text);
    if (!parsed) return fail(std::move(parsed.error()).in(path));
    file = std::move(*parsed);
  } else if (text.error().code == Code::kNotFound) {
    HYDRANT_TRY(file.server, read_certificates(directory));
  } else {
    return fail(std::move(text.error()));
  }
  RegistryPlaces out;
  for (auto& host : file.hosts) {
    if (host.options.connect_timeout.count() == 0) host.options.connect_timeout = kMirrorConnectTimeout;
    HYDRANT_TRY(auto place, place_of(std::move(host), directory));
    out.mirrors.push_back(std::move(place));
  }
  HYDRANT_TRY(out.own, place_of(std::move(file.server), directory));
  return out;
}

bool same(const RegistryPlace& a, const RegistryPlace& b) {
  return a.url == b.url && a.pull == b.pull && a.resolve == b.resolve && a.push == b.push && *a.options == *b.options;
}

bool same(const RegistryPlaces& a, const RegistryPlaces& b) {
  return same(a.own, b.own) &&
         std::ranges::equal(a.mirrors, b.mirrors, [](const auto& x, const auto& y) { return same(x, y); });
}

}  // namespace

Result<std::shared_ptr<const RegistryPlaces>> HostDirectory::find(const std::string& registry) const {
  std::vector<std::string> names = {registry, "_default"};
  if (auto colon = registry.rfind(':'); colon != registry.npos && !registry.ends_with(']'))
    names.insert(names.begin(), registry.substr(0, colon) + "_" + registry.substr(colon + 1) + "_");

  RegistryPlaces places{.mirrors = {}, .own = {.url = {}, .options = std::make_shared<const HostOptions>()}};
  const auto found = [&]() -> std::optional<fs::path> {
    std::error_code error;
    for (const auto& directory : directories_)
      for (const auto& name : names)
        if (fs::is_directory(fs::path(directory) / name, error)) return fs::path(directory) / name;
    return std::nullopt;
  }();
  if (found) {
    HYDRANT_TRY(places, read_places(*found));
  }

  auto known = known_.lock();
  if (known->size() >= kMaxKnown && !known->contains(registry)) known->clear();
  auto& kept = (*known)[registry];
  if (!kept || !same(*kept, places)) kept = std::make_shared<const RegistryPlaces>(std::move(places));
  return kept;
}

std::vector<std::string> default_host_directories() {
  return {"/etc/hydrant/certs.d", "/etc/containerd/certs.d", "/etc/docker/certs.d"};
}

}  // namespace hydrant::source
