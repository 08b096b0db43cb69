// Reads the tree of an EROFS image that somebody else made, for layers that are such images. Whiteouts are overlayfs's
// (Documentation/filesystems/overlayfs.rst); the structures are proto/erofs_layout.h.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "base/error.h"
#include "image/erofs/packed_file.h"
#include "image/erofs/read_image.h"
#include "image/file_table.h"

namespace hydrant::image {

struct ErofsTable {
  // As a tar's: parents before their children, a further name of an inode is a hard link, whiteouts and opaque
  // directories as the merge takes them, overlayfs's own attributes gone. `device_offset` of a data piece is a place in
  // the image; pieces of two files may overlap.
  FileTable files;
  uint64_t pieces = 0;  // of all files
  uint64_t image_size = 0;

  // Regular files that are compressed in the image, in the order in which they are best decoded: they have no pieces.
  struct Packed {
    size_t file;  // in `files`
    PackedInode inode;
  };
  std::vector<Packed> packed;
  PackedFormat packed_format;
  std::optional<PackedInode> fragments;  // that hold parts of them
  std::string algorithms() const;        // for people
};

// True when the first 1028 bytes or more are those of an EROFS image.
bool is_erofs(Bytes head);

// Trusts nothing: every offset is checked, and time and memory are proportional to `size`.
// kCorrupt: it contradicts itself, points out of the image, or has one directory twice. kUnsupported: what cannot
// become part of a merged tree (other devices, redirects to other layers, blocks that are no multiple of 4 KiB), and
// compression of a kind that is not known here. The error names the file.
Result<ErofsTable> read_erofs(uint64_t size, const ReadImage& read);

// Decodes the compressed files of the table's image. `sink` gets each one's bytes in order: `packed` of the table, an
// offset, and at most kMaxErofsExtent bytes. Errors name the file, as `ErofsUnpacker` has them.
using PackedSink = std::function<Result<>(size_t packed, uint64_t offset, Bytes bytes)>;
Result<> unpack_erofs(const ErofsTable& table, const ReadImage& read, const PackedSink& sink);

}  // namespace hydrant::image
