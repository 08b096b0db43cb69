#include "image/tar/tar_member.h"

#include <limits>

#include "image/tar/tar_path.h"

namespace hydrant::image {
namespace {

constexpr std::string_view kWhiteoutPrefix = ".wh.";
constexpr std::string_view kAufsPrefix = ".wh..wh.";
constexpr std::string_view kOpaqueName = ".wh..wh..opq";

// Whether a component of `path` is AUFS's own.
bool has_aufs_name(std::string_view path) {
  for (size_t at = path.find(kAufsPrefix); at != path.npos; at = path.find(kAufsPrefix, at + 1)) {
    if (at == 0 || path[at - 1] == '/') return true;
  }
  return false;
}

Result<uint32_t> to_u32(int64_t value, std::string_view what) {
  if (value < 0 || value > std::numeric_limits<uint32_t>::max()) {
    return fail(Code::kUnsupported, std::string(what) + " " + std::to_string(value) + " does not fit 32 bits");
  }
  return static_cast<uint32_t>(value);
}

Result<FileType> type_of(const TarHeader& header) {
  switch (header.type) {
    case '\0':
    case '0':
    case '7': return header.name.ends_with('/') ? FileType::kDirectory : FileType::kRegular;
    case 'S': return FileType::kRegular;
    case '1': return FileType::kHardLink;
    case '2': return FileType::kSymlink;
    case '3': return FileType::kCharDevice;
    case '4': return FileType::kBlockDevice;
    case '5':
    case 'D': return FileType::kDirectory;
    case '6': return FileType::kFifo;
  }
  return fail(Code::kUnsupported, "tar member type " + printable(std::string_view(&header.type, 1)) + " is unknown");
}

bool belongs_to_overlayfs(std::string_view xattr) {
  return xattr.starts_with("trusted.overlay.") || xattr.starts_with("user.overlay.");
}

// Turns a ".wh." name into what it hides.
Result<> apply_whiteout(FileEntry& entry) {
  std::string_view name = base_name(entry.path);
  if (!name.starts_with(kWhiteoutPrefix)) return {};
  std::string directory(parent_path(entry.path));
  if (name == kOpaqueName) {
    entry.type = FileType::kOpaque;
    entry.path = std::move(directory);
    return {};
  }
  std::string hidden(name.substr(kWhiteoutPrefix.size()));
  if (hidden.empty() || hidden == "." || hidden == "..") return fail(Code::kCorrupt, "a whiteout hides no name");
  if (!directory.empty()) hidden = directory + '/' + hidden;
  entry.type = FileType::kWhiteout;
  entry.path = std::move(hidden);
  return {};
}

Result<> set_link(const TarHeader& header, FileEntry& entry) {
  const std::string& target = header.link_name;
  if (entry.type == FileType::kHardLink) {
    HYDRANT_TRY(entry.link_target, normalize_path(target));
    if (entry.link_target.empty()) return fail(Code::kCorrupt, "a hard link has no target");
    return {};
  }
  if (target.empty()) return fail(Code::kCorrupt, "a symbolic link has no target");
  if (target.find('\0') != target.npos) return fail(Code::kCorrupt, "a symbolic link's target contains a NUL");
  if (target.size() > kMaxSymlink) {
    return fail(Code::kUnsupported, "a symbolic link's target is longer than 4095 bytes");
  }
  entry.link_target = target;
  return {};
}

}  // namespace

Result<std::optional<FileEntry>> make_entry(const TarHeader& header, const PaxValues& pax) {
  FileEntry entry;
  HYDRANT_TRY(entry.path, normalize_path(header.name));
  HYDRANT_TRY(entry.type, type_of(header));
  bool is_opaque = base_name(entry.path) == kOpaqueName && !has_aufs_name(parent_path(entry.path));
  if (!is_opaque && has_aufs_name(entry.path)) return std::optional<FileEntry>();
  if (base_name(entry.path).starts_with(kWhiteoutPrefix)) {
    HYDRANT_TRY_VOID(apply_whiteout(entry));
    return std::optional(std::move(entry));
  }
  if (entry.path.empty() && entry.type != FileType::kDirectory) {
    return fail(Code::kCorrupt, "the root of the tree is no directory");
  }
  if (entry.type == FileType::kHardLink || entry.type == FileType::kSymlink) {
    HYDRANT_TRY_VOID(set_link(header, entry));
    if (entry.type == FileType::kHardLink && has_aufs_name(entry.link_target)) return std::optional<FileEntry>();
  }
  entry.mode = header.mode;
  HYDRANT_TRY(entry.uid, to_u32(pax.uid.value_or(header.uid), "uid"));
  HYDRANT_TRY(entry.gid, to_u32(pax.gid.value_or(header.gid), "gid"));
  HYDRANT_TRY(entry.rdev_major, to_u32(header.rdev_major, "device major"));
  HYDRANT_TRY(entry.rdev_minor, to_u32(header.rdev_minor, "device minor"));
  entry.mtime = pax.mtime.value_or(header.mtime);
  entry.mtime_nsec = pax.mtime ? pax.mtime_nsec : 0;
  if (entry.type == FileType::kRegular) entry.size = header.size;
  for (const auto& [name, value] : pax.xattrs) {
    if (!belongs_to_overlayfs(name)) entry.xattrs.push_back({name, value});
  }
  return std::optional(std::move(entry));
}

}  // namespace hydrant::image
