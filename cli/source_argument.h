// What the command line says about an image, made independent of where the command line was typed.
#pragma once

#include <string>

#include "base/error.h"

namespace hydrant::cli {

// Credentials in the form of docker's config.json: that file itself ($DOCKER_CONFIG, else ~/.docker) with what podman's
// adds ($XDG_RUNTIME_DIR/containers/auth.json, else /run/containers/UID/auth.json; ~/.config/containers/auth.json), or
// $REGISTRY_AUTH_FILE alone, which must exist. "" when there is none. At most 512 KiB each.
Result<std::string> read_docker_config();

// The directory as the kernel names it: absolute, no symbolic links. A directory that cannot be looked at (a dead
// mount) is taken by its text.
std::string resolve_dir(const std::string& dir);

}  // namespace hydrant::cli
