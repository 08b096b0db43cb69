// Hexadecimal text in lower case, two digits a byte.
#pragma once

#include <optional>
#include <string_view>

#include "base/bytes.h"

namespace hydrant {

// Nothing when `text` is not of such digits, or of an odd number of them.
std::optional<Buffer> from_hex(std::string_view text);

}  // namespace hydrant
