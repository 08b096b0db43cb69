// What the command line says about an image, made independent of where the command line was typed.
#pragma once

#include <string>

#include "base/error.h"

namespace hydrant::cli {

// The content of docker's config.json ($DOCKER_CONFIG, else ~/.docker), "" when there is none. At most 512 KiB.
Result<std::string> read_docker_config();

// The directory as the kernel names it: absolute, no symbolic links. A directory that cannot be looked at (a dead
// mount) is taken by its text.
std::string resolve_dir(const std::string& dir);

}  // namespace hydrant::cli
