#include "image/tar/tar_path.h"

#include <algorithm>

namespace hydrant::image {

std::string printable(std::string_view path) {
  constexpr size_t kShown = 80;
  std::string out(path.substr(0, kShown));
  for (char& c : out) {
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) c = '?';
  }
  if (path.size() > kShown) out += "... (" + std::to_string(path.size()) + " bytes)";
  return "\"" + out + "\"";
}

Result<std::string> normalize_path(std::string_view path) {
  if (path.find('\0') != path.npos) return fail(Code::kCorrupt, "path " + printable(path) + " contains a NUL");
  std::string out;
  for (std::string_view rest = path; !rest.empty();) {
    size_t slash = std::min(rest.find('/'), rest.size());
    std::string_view name = rest.substr(0, slash);
    rest.remove_prefix(std::min(slash + 1, rest.size()));
    if (name.empty() || name == ".") continue;
    if (name == "..") return fail(Code::kCorrupt, "path " + printable(path) + " contains \"..\"");
    if (name.size() > kMaxName) {
      return fail(Code::kUnsupported, "path " + printable(path) + " has a name longer than 255 bytes");
    }
    if (!out.empty()) out += '/';
    out += name;
    if (out.size() > kMaxPath) {
      return fail(Code::kUnsupported, "path " + printable(path) + " is longer than 4096 bytes");
    }
  }
  return out;
}

}  // namespace hydrant::image
