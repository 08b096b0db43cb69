// One layer's files as its tar archive lists them, in tar order. What the tar reader makes, the layer index keeps and
// the merge consumes.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace hydrant::image {

enum class FileType : uint8_t {
  kRegular = 1,
  kDirectory = 2,
  kCharDevice = 3,
  kBlockDevice = 4,
  kFifo = 5,
  kSocket = 6,
  kSymlink = 7,
  kHardLink = 8,  // link_target is the path of another entry
  kWhiteout = 9,  // path is the hidden name of lower layers (without ".wh.")
  kOpaque = 10,   // path is the directory whose lower children are hidden
};

struct Xattr {
  std::string name;  // full: "user.x", "security.capability"
  std::string value;
  auto operator<=>(const Xattr&) const = default;
};

// `length` bytes of the file at `file_offset` stand at `device_offset` of the layer's device. Offsets of one piece are
// equal modulo 4096. Bytes of the file that no piece covers are zeros (holes).
struct DataPiece {
  uint64_t file_offset = 0;
  uint64_t device_offset = 0;
  uint64_t length = 0;
  auto operator<=>(const DataPiece&) const = default;
};

struct FileEntry {
  std::string path;  // normalized: no leading '/' or "./", no "//", no ".."; the root is ""
  FileType type = FileType::kRegular;
  uint16_t mode = 0;  // permission bits with set-id and sticky: 07777
  uint32_t uid = 0;
  uint32_t gid = 0;
  int64_t mtime = 0;        // seconds since the epoch, may be negative
  uint32_t mtime_nsec = 0;  // 0..999999999
  uint64_t size = 0;        // of a regular file, holes included
  std::string link_target;  // of a symlink (verbatim) or a hard link (normalized as path)
  uint32_t rdev_major = 0;
  uint32_t rdev_minor = 0;
  std::vector<Xattr> xattrs;    // sorted by name
  std::vector<DataPiece> data;  // sorted, disjoint
  bool operator==(const FileEntry&) const = default;
};

using FileTable = std::vector<FileEntry>;

}  // namespace hydrant::image
