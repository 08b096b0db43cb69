// Names and sizes of cache objects that both daemons must agree on.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/digest.h"

namespace hydrant::proto {

// The size that an OPEN is answered with while nobody knows the true one: no device is larger.
inline constexpr uint64_t kNominalSize = uint64_t{1} << 43;

// All images share their devices in this domain.
inline constexpr std::string_view kDomain = "hydrant";

// The cookie key of a device: 64 hex digits. `content` is what its bytes are a function of: a layer's diff_id as text,
// or the origin of a file.
inline std::string device_object_id(unsigned layout_version, std::string_view content) {
  std::string text = "hydrant device " + std::to_string(layout_version) + " " + std::string(content);
  return sha256(as_bytes(text)).hex();
}

}  // namespace hydrant::proto
