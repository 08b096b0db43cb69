#include "source/hosts/hosts_file.h"

#define TOML_EXCEPTIONS 0
#include <toml++/toml.h>

#include <algorithm>
#include <charconv>

#include "proto/reference.h"

namespace hydrant::source {

namespace {

constexpr size_t kMaxText = 1 << 20;
constexpr size_t kMaxHosts = 64;
constexpr size_t kMaxValues = 64;

tl::unexpected<Error> invalid(const toml::source_region& at, const std::string& what) {
  return fail(Code::kInvalid, "line " + std::to_string(at.begin.line) + ": " + what);
}

// A value that is a text or a list of texts.
Result<std::vector<std::string>> texts(const toml::node& node, const std::string& key) {
  if (auto one = node.value_exact<std::string>()) return std::vector<std::string>{std::move(*one)};
  const auto* array = node.as_array();
  if (!array || array->size() > kMaxValues) return invalid(node.source(), key + " must be a text or a list of texts");
  std::vector<std::string> out;
  for (const auto& element : *array) {
    auto text = element.value_exact<std::string>();
    if (!text) return invalid(element.source(), key + " must be a text or a list of texts");
    out.push_back(std::move(*text));
  }
  return out;
}

Result<bool> flag(const toml::node& node, const std::string& key) {
  auto value = node.value_exact<bool>();
  if (!value) return invalid(node.source(), key + " must be true or false");
  return *value;
}

// "cert", ["cert", …] with the keys inside, or [["cert", "key"], …].
Result<std::vector<std::pair<std::string, std::string>>> client_certs(const toml::node& node) {
  std::vector<std::pair<std::string, std::string>> out;
  const auto* array = node.as_array();
  const bool pairs = array && !array->empty() && array->front().is_array();
  if (!pairs) {
    HYDRANT_TRY(auto files, texts(node, "client"));
    for (auto& file : files) out.emplace_back(file, file);
    return out;
  }
  for (const auto& element : *array) {
    HYDRANT_TRY(auto pair, texts(element, "client"));
    if (pair.empty() || pair.size() > 2)
      return invalid(element.source(), "client must hold pairs of certificate and key");
    out.emplace_back(pair.front(), pair.back());
  }
  return out;
}

// A duration as Go writes it, of one unit: "3s", "500ms", "2m"; a bare number is seconds.
Result<std::chrono::milliseconds> duration(const toml::node& node, const std::string& key) {
  using std::chrono::milliseconds;
  constexpr int64_t kLongest = 24 * 3600 * 1000;
  std::string text = node.value<std::string>().value_or("");
  if (auto number = node.value_exact<int64_t>()) text = std::to_string(*number) + "s";
  int64_t count = -1;
  auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), count);
  const std::string_view unit(end, static_cast<size_t>(text.data() + text.size() - end));
  const int64_t scale = unit == "ms" ? 1 : unit == "s" ? 1000 : unit == "m" ? 60'000 : 0;
  if (error != std::errc() || scale == 0 || count < 0 || count > kLongest / scale)
    return invalid(node.source(), key + " must be a duration like \"3s\"");
  return milliseconds(count * scale);
}

Result<std::vector<std::string>> header_lines(const toml::node& node) {
  const auto* table = node.as_table();
  if (!table || table->size() > kMaxValues) return invalid(node.source(), "header must be a table");
  std::vector<std::string> out;
  for (const auto& [name, values] : *table) {
    HYDRANT_TRY(auto list, texts(values, "header"));
    for (const auto& value : list) {
      std::string line = std::string(name.str()) + ": " + value;
      if (line.find_first_of(std::string_view("\r\n\0", 3)) != line.npos || line.starts_with(':'))
        return invalid(values.source(), "a header must be a name and one line");
      out.push_back(std::move(line));
    }
  }
  return out;
}

Result<> take_capabilities(const toml::node& node, HostEntry& entry) {
  HYDRANT_TRY(auto names, texts(node, "capabilities"));
  if (names.empty()) return {};
  auto has = [&](std::string_view name) { return std::ranges::find(names, name) != names.end(); };
  for (const auto& name : names)
    if (name != "pull" && name != "resolve" && name != "push")
      return invalid(node.source(), "capabilities are pull, resolve and push, not '" + name + "'");
  entry.pull = has("pull");
  entry.resolve = has("resolve");
  entry.push = has("push");
  return {};
}

// Where the API's paths begin. A path that does not say /v2 gets it, unless the file asks for the path as it is.
std::string api_url(std::string url, bool override_path) {
  if (url.empty()) return url;
  if (url.find("://") == url.npos) url = "https://" + url;
  while (url.ends_with('/')) url.pop_back();
  const bool has_path = url.find('/', url.find("://") + 3) != url.npos;
  if (override_path && has_path) return url;
  return url.ends_with("/v2") && has_path ? url : url + "/v2";
}

Result<HostEntry> parse_entry(const toml::table& table, std::string url, const toml::source_region& at) {
  HostEntry entry;
  bool override_path = false;
  for (const auto& [key, node] : table) {
    const std::string_view name = key.str();
    if (name == "capabilities") {
      HYDRANT_TRY_VOID(take_capabilities(node, entry));
    } else if (name == "skip_verify") {
      HYDRANT_TRY(entry.options.skip_verify, flag(node, "skip_verify"));
    } else if (name == "override_path") {
      HYDRANT_TRY(override_path, flag(node, "override_path"));
    } else if (name == "ca") {
      HYDRANT_TRY(entry.ca_files, texts(node, "ca"));
    } else if (name == "client") {
      HYDRANT_TRY(entry.client_certs, client_certs(node));
    } else if (name == "header") {
      HYDRANT_TRY(entry.options.headers, header_lines(node));
    } else if (name == "dial_timeout") {
      HYDRANT_TRY(entry.options.connect_timeout, duration(node, "dial_timeout"));
    } else if (name == "proxy") {
      HYDRANT_TRY(auto proxy, texts(node, "proxy"));
      if (proxy.size() != 1 || origin_of(proxy[0]).empty()) return invalid(node.source(), "proxy must be one URL");
      entry.options.proxy = proxy[0];
    }
  }
  entry.url = api_url(std::move(url), override_path);
  const bool web = entry.url.starts_with("https://") || entry.url.starts_with("http://");
  if (!entry.url.empty() && (!web || origin_of(entry.url).empty() || entry.url.find_first_of("?#") != entry.url.npos))
    return invalid(at, "'" + proto::url_without_secrets(entry.url) + "' is no http(s) URL of a registry");
  return entry;
}

}  // namespace

Result<HostsFile> parse_hosts_file(std::string_view text) {
  if (text.size() > kMaxText) return fail(Code::kInvalid, "is larger than 1 MiB");
  auto parsed = toml::parse(text);
  if (!parsed) {
    const auto& error = parsed.error();
    return invalid(error.source(), std::string(error.description()));
  }
  const toml::table& root = parsed.table();
  HostsFile out;
  std::string server;
  if (const auto* node = root.get("server")) {
    auto value = node->value_exact<std::string>();
    if (!value) return invalid(node->source(), "server must be a URL");
    server = std::move(*value);
  }
  HYDRANT_TRY(out.server, parse_entry(root, std::move(server), root.source()));

  const auto* node = root.get("host");
  if (!node) return out;
  const auto* hosts = node->as_table();
  if (!hosts) return invalid(node->source(), "host must be tables: [host.\"https://mirror.example\"]");
  if (hosts->size() > kMaxHosts) return invalid(node->source(), "more than 64 hosts");
  // The library sorts by name; mirrors are tried as they were written.
  std::vector<std::pair<toml::source_position, HostEntry>> found;
  for (const auto& [url, each] : *hosts) {
    const auto* table = each.as_table();
    if (!table) return invalid(each.source(), "host must be tables: [host.\"https://mirror.example\"]");
    HYDRANT_TRY(auto entry, parse_entry(*table, std::string(url.str()), each.source()));
    found.emplace_back(each.source().begin, std::move(entry));
  }
  std::ranges::stable_sort(found, {}, [](const auto& pair) { return std::pair(pair.first.line, pair.first.column); });
  for (auto& [at, entry] : found) out.hosts.push_back(std::move(entry));
  return out;
}

}  // namespace hydrant::source
