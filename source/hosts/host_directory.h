// The directories in which operators describe how registries are reached: /etc/containerd/certs.d and its likes.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/guarded.h"
#include "source/http/http_client.h"

namespace hydrant::source {

// A place to ask for a registry's content, ready for use.
struct RegistryPlace {
  std::string url;  // "https://mirror.example/v2"; empty: the registry's own
  bool pull = true, resolve = true, push = true;
  std::shared_ptr<const HostOptions> options;  // never null; the same as long as the files say the same
};

struct RegistryPlaces {
  std::vector<RegistryPlace> mirrors;  // in the order to try, before `own`
  RegistryPlace own;
};

// Looks for DIR/HOST_PORT_, DIR/HOST:PORT, DIR/HOST and DIR/_default, DIR by DIR; in it for hosts.toml, else for
// docker's *.crt, *.cert and *.key. Paths in hosts.toml are relative to it. Thread-safe.
class HostDirectory {
 public:
  explicit HostDirectory(std::vector<std::string> directories) : directories_(std::move(directories)) {}

  // As the files are now, read anew each time. Without any: the registry's own place alone. kInvalid names file and
  // line. `registry` as an image's name has it: "docker.io", "registry.example:5000".
  Result<std::shared_ptr<const RegistryPlaces>> find(const std::string& registry) const;

 private:
  const std::vector<std::string> directories_;
  // What was found last: who finds the same again gets the same places, with what is known of them.
  mutable Guarded<std::map<std::string, std::shared_ptr<const RegistryPlaces>>> known_;
};

// What containerd, docker and we read by default.
std::vector<std::string> default_host_directories();

}  // namespace hydrant::source
