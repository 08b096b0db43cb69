// Names as archives write them, made into names of the tree.
#pragma once

#include <string>
#include <string_view>

#include "base/error.h"

namespace hydrant::image {

inline constexpr size_t kMaxPath = 4096;
inline constexpr size_t kMaxName = 255;
inline constexpr size_t kMaxSymlink = 4095;

// Strips leading '/' and "./", drops "." components and empty ones. The root is "". kCorrupt for ".." and NUL,
// kUnsupported past kMaxPath or kMaxName; the error names the path, shortened.
Result<std::string> normalize_path(std::string_view path);

// For messages: at most 80 bytes of it, control characters replaced.
std::string printable(std::string_view path);

// What follows the last '/', and what precedes it ("" at the top).
inline std::string_view base_name(std::string_view path) { return path.substr(path.rfind('/') + 1); }
inline std::string_view parent_path(std::string_view path) {
  size_t slash = path.rfind('/');
  return slash == path.npos ? std::string_view() : path.substr(0, slash);
}

}  // namespace hydrant::image
