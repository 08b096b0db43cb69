// A prefetch list: which parts of which files a start of an image reads, and when. docs/formats/prefetch-list.md.
//
// It names files, not places in a blob, so it outlives another layout, span size or compressor.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/digest.h"
#include "base/error.h"

namespace hydrant::proto {

struct PrefetchEntry {
  Digest layer;         // its diff_id
  std::string path;     // in the layer, as image::FileEntry has it
  uint64_t offset = 0;  // bytes of the file
  uint64_t length = 0;  // 0 with offset 0: all of it
  uint32_t ms = 0;      // after the mount; the mean of the runs that read it
  uint32_t hits = 1;    // runs that read it
  bool operator==(const PrefetchEntry&) const = default;
};

struct PrefetchList {
  std::string subject;                 // the manifest's digest
  uint32_t runs = 0;                   // starts that it was learned from
  std::vector<PrefetchEntry> entries;  // by `ms`
  bool operator==(const PrefetchList&) const = default;
};

// Longer texts, and lists with more entries, are refused and never made.
constexpr size_t kMaxPrefetchText = 16 << 20;
constexpr size_t kMaxPrefetchEntries = 65536;

std::string encode(const PrefetchList& list);
// kInvalid: no prefetch list; kUnsupported: of a later version.
Result<PrefetchList> decode_prefetch_list(std::string_view text);

}  // namespace hydrant::proto
