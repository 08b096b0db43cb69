// Reads the tree of an EROFS image that somebody else made, for layers that are such images. Whiteouts are overlayfs's
// (Documentation/filesystems/overlayfs.rst); the structures are proto/erofs_layout.h.
#pragma once

#include <cstdint>
#include <functional>

#include "base/bytes.h"
#include "base/error.h"
#include "image/file_table.h"

namespace hydrant::image {

// Bytes of an image: fills `out` from `offset`, which lies inside the image with all of it, or fails.
using ReadImage = std::function<Result<>(uint64_t offset, MutableBytes out)>;

struct ErofsTable {
  // As a tar's: parents before their children, a further name of an inode is a hard link, whiteouts and opaque
  // directories as the merge takes them, overlayfs's own attributes gone. `device_offset` of a data piece is a place in
  // the image; pieces of two files may overlap.
  FileTable files;
  uint64_t pieces = 0;  // of all files
};

// True when the first 1028 bytes or more are those of an EROFS image.
bool is_erofs(Bytes head);

// Trusts nothing: every offset is checked, and time and memory are proportional to `size`.
// kCorrupt: it contradicts itself, points out of the image, or has one directory twice. kUnsupported: what cannot
// become part of a merged tree (compressed files, other devices, redirects to other layers, blocks that are no multiple
// of 4 KiB). The error names the file.
Result<ErofsTable> read_erofs(uint64_t size, const ReadImage& read);

}  // namespace hydrant::image
