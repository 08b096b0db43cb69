// Base64 with padding (RFC 4648, section 4), over OpenSSL.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace hydrant::source {

std::string base64_encode(std::string_view text);
// Nothing when `text` is no base64. At most 1 MiB.
std::optional<std::string> base64_decode(std::string_view text);

}  // namespace hydrant::source
