#include "base/mount_info.h"

#include <charconv>

#include "base/file.h"

namespace hydrant {

namespace {

// Blanks, tabs, newlines and backslashes stand as three octal digits.
std::string unescape(std::string_view text) {
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    auto digit = [&](size_t at) { return at < text.size() && text[at] >= '0' && text[at] <= '7'; };
    if (text[i] == '\\' && digit(i + 1) && digit(i + 2) && digit(i + 3)) {
      out += static_cast<char>((text[i + 1] - '0') << 6 | (text[i + 2] - '0') << 3 | (text[i + 3] - '0'));
      i += 3;
    } else {
      out += text[i];
    }
  }
  return out;
}

std::string_view take_word(std::string_view& line) {
  size_t end = line.find(' ');
  std::string_view word = line.substr(0, end);
  line.remove_prefix(end == std::string_view::npos ? line.size() : end + 1);
  return word;
}

}  // namespace

std::vector<MountInfo> parse_mountinfo(std::string_view text) {
  std::vector<MountInfo> mounts;
  while (!text.empty()) {
    size_t end = text.find('\n');
    std::string_view line = text.substr(0, end);
    text.remove_prefix(end == std::string_view::npos ? text.size() : end + 1);

    MountInfo mount;
    std::string_view id = take_word(line);
    if (std::from_chars(id.data(), id.data() + id.size(), mount.id).ec != std::errc()) continue;
    take_word(line);  // parent
    mount.device = take_word(line);
    take_word(line);  // root inside the file system
    mount.path = unescape(take_word(line));
    // Options and any number of optional fields, then a lone dash.
    while (!line.empty() && take_word(line) != "-") continue;
    mount.type = unescape(take_word(line));
    mount.source = unescape(take_word(line));
    if (!mount.type.empty()) mounts.push_back(std::move(mount));
  }
  return mounts;
}

Result<std::vector<MountInfo>> read_mounts() {
  HYDRANT_TRY(std::string text, read_file("/proc/self/mountinfo"));
  return parse_mountinfo(text);
}

const MountInfo* find_mount(const std::vector<MountInfo>& mounts, std::string_view path) {
  for (auto at = mounts.rbegin(); at != mounts.rend(); ++at)
    if (at->path == path) return &*at;
  return nullptr;
}

}  // namespace hydrant
