// The records of a pax extended header.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "base/error.h"

namespace hydrant::image {

struct SparseRun {
  uint64_t file_offset = 0;
  uint64_t length = 0;
};

// What the records say that have a meaning here; other keys are read over.
struct PaxValues {
  std::optional<std::string> path;
  std::optional<std::string> link_path;
  std::optional<uint64_t> size;  // of the payload
  std::optional<int64_t> uid;
  std::optional<int64_t> gid;
  std::optional<int64_t> mtime;
  uint32_t mtime_nsec = 0;
  std::map<std::string, std::string> xattrs;

  struct Sparse {
    std::optional<std::string> name;    // the file's own; `path` is what readers without sparse files shall see
    std::optional<uint64_t> real_size;  // holes included
    std::optional<uint64_t> major, minor;
    std::vector<SparseRun> runs;          // formats 0.0 and 0.1; in 1.0 they stand in the payload
    std::optional<uint64_t> open_offset;  // 0.0: an offset whose length has not come yet
    bool present = false;
  } sparse;
};

enum class PaxScope { kOneMember, kGlobal };

// Adds the records in `bytes` to `values`: a later value replaces an earlier one, an empty one removes it (an extended
// attribute becomes empty). Times are rounded down to nanoseconds. kCorrupt for malformed records and values,
// kUnsupported for keys of one file in a global header. Memory is proportional to `bytes`.
Result<> decode_pax(Bytes bytes, PaxScope scope, PaxValues& values);

// Decimal digits alone; nothing past 63 bits.
std::optional<uint64_t> parse_decimal(std::string_view text);

// With padding or, as libarchive writes it, without.
std::optional<std::string> base64_decode(std::string_view text);

}  // namespace hydrant::image
