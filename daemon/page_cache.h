// What the kernel keeps of a mounted tree.
#pragma once

#include <string>

#include "base/error.h"

namespace hydrant::daemon {

// Has the kernel forget what it has cached of the files below `top`, a directory or a single file, on that file system.
// Pages that somebody has mapped or is reading stay. Opens each file; never follows a symlink.
Result<> forget_pages(const std::string& top);

}  // namespace hydrant::daemon
