// Reads a tar archive as it arrives: ustar, pax, GNU and V7 members, sparse files included, with the place of every
// payload byte in the archive. Formats: POSIX.1-2017 pax(1) "ustar" and "pax Interchange Format", the GNU tar manual's
// "Basic Tar Format" and "Sparse Formats", the OCI image specification's layer whiteouts.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "base/error.h"
#include "image/file_table.h"

namespace hydrant::image {

// `length` bytes (never 0) of the file at `file_offset` stand at `tar_offset` of the archive.
struct TarSegment {
  uint64_t file_offset = 0;
  uint64_t tar_offset = 0;
  uint64_t length = 0;
  auto operator<=>(const TarSegment&) const = default;
};

// Where a member's payload stands in the uncompressed archive.
struct TarData {
  uint64_t tar_offset = 0;           // of the first payload byte; a pax 1.0 sparse map counts as payload
  std::vector<TarSegment> segments;  // ascending and disjoint in both offsets; what none covers is a hole
};

// An error that a visitor returns ends the reading and becomes the reader's result.
class TarVisitor {
 public:
  virtual ~TarVisitor() = default;
  // Once a member, before its data. `entry.data` is empty: where the data goes is the visitor's business.
  // data.segments is empty but for regular files that have bytes.
  virtual Result<> on_entry(FileEntry&& entry, TarData&& data) = 0;
  // Bytes of one segment of the current entry, ascending; every byte of every segment is handed out exactly once.
  virtual Result<> on_data(uint64_t tar_offset, Bytes bytes) = 0;
  // All data of the current entry was handed out.
  virtual Result<> on_entry_end() = 0;
};

struct TarLimits {
  uint64_t max_entries = 8'000'000;
  uint64_t max_header_bytes = 1 << 20;  // of one pax header or long name
  uint64_t max_segments = 1'000'000;    // of one sparse file
  uint64_t max_file_size = 1ull << 44;  // 16 TiB: what 32-bit block addresses of 4 KiB reach
};

// What the entries look like:
// - Paths are normalized as FileEntry says. ".." is refused (kCorrupt), so are NULs; components over 255 bytes and
// paths
//   over 4096 are kUnsupported. The error names the path.
// - ".wh.NAME" becomes kWhiteout of NAME, ".wh..wh..opq" becomes kOpaque of its directory; every other path with a
//   component ".wh..wh.*" is skipped, and hard links to such a path too.
// - "trusted.overlay.*" and "user.overlay.*" xattrs are dropped: an overlayfs on top of the mount would obey them.
// - Links, devices and directories have no payload whatever their size field says, as the Go reader that container
//   engines use has it. Contiguous files are regular; types nobody documents are kUnsupported.
// - Values of a pax global header hold for the members after it, their own values win. A global header that sets what
//   can only belong to one file (path, linkpath, size, a sparse map) is kUnsupported.
//
// Memory is bounded by the limits, never by a size field. Not thread-safe.
class TarReader {
 public:
  // `visitor` must outlive the reader.
  explicit TarReader(TarVisitor& visitor, TarLimits limits = {});
  ~TarReader();
  TarReader(TarReader&&) noexcept;

  // The next bytes of the archive, cut anywhere. After an error every call repeats it. Bytes after the end mark are
  // ignored.
  Result<> feed(Bytes bytes);
  // The archive is complete: kCorrupt when it stops inside a member. An end without the end mark is fine.
  Result<> finish();

  uint64_t offset() const;  // bytes fed so far

 private:
  class Parser;
  std::unique_ptr<Parser> parser_;
};

}  // namespace hydrant::image
