// Which boot of the machine this is: what was true of the kernel in another one is not any more.
#pragma once

#include <string>

#include "base/error.h"

namespace hydrant {

// A UUID as the kernel writes it, without the end of line.
Result<std::string> boot_id();

}  // namespace hydrant
