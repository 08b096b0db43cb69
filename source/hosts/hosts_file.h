// hosts.toml, containerd's description of where the content of a registry may be asked for: mirrors in their order,
// then the registry itself. Format: containerd's docs/hosts.md. Only text is read here; files that it names are not
// touched.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/error.h"
#include "source/http/http_client.h"

namespace hydrant::source {

// One [host."URL"], or the registry itself with the keys that stand in no table.
struct HostEntry {
  std::string url;  // "https://mirror.example/v2": what the API's paths are put behind; empty: the registry's own place
  bool pull = true, resolve = true, push = true;
  std::vector<std::string> ca_files;                              // as written
  std::vector<std::pair<std::string, std::string>> client_certs;  // certificate, key; equal where one file holds both
  HostOptions options = {};                                       // without the certificates

  bool operator==(const HostEntry&) const = default;
};

struct HostsFile {
  std::vector<HostEntry> hosts;  // in the order to try
  HostEntry server;              // last
};

// At most 1 MiB and 64 hosts. kInvalid tells the line, and what is wrong with a value of a key that is known; unknown
// keys are skipped, as containerd does.
Result<HostsFile> parse_hosts_file(std::string_view text);

}  // namespace hydrant::source
