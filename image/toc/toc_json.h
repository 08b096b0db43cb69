// The entries of a table of contents as its JSON has them. Formats: the eStargz specification's TOC, and that of
// zstd:chunked, which differs in a few fields.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/digest.h"
#include "base/error.h"

namespace hydrant::image {

// Numbers that are not there are 0, texts empty, digests zero.
struct TocEntry {
  std::string name;
  std::string type;  // dir reg symlink hardlink char block fifo chunk
  std::string link_name;
  uint64_t size = 0;
  uint64_t mode = 0, uid = 0, gid = 0;
  uint64_t dev_major = 0, dev_minor = 0;
  int64_t mtime = 0;
  uint32_t mtime_nsec = 0;
  std::vector<std::pair<std::string, std::string>> xattrs;  // values decoded
  Digest digest;                                            // of the whole file
  uint64_t offset = 0;                                      // of the gzip member or zstd frame in the layer
  uint64_t inner_offset = 0;                                // of the data in what that yields
  uint64_t chunk_offset = 0;                                // in the file
  uint64_t chunk_size = 0;
  Digest chunk_digest;
  bool zeros = false;  // a chunk that is a hole
};

// Calls `take` for each entry, in order; its error ends the reading. kCorrupt for what is no such JSON, kUnsupported
// for another version. Memory: one entry. Digests that are not SHA-256 count as not there.
using TocSink = std::function<Result<>(TocEntry&&)>;
Result<> read_toc_json(std::string_view json, const TocSink& take);

// "2006-01-02T15:04:05.999999999+02:00" as seconds since 1970 and nanoseconds.
std::optional<std::pair<int64_t, uint32_t>> parse_rfc3339(std::string_view text);

}  // namespace hydrant::image
