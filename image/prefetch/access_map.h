// Between what was read of a layer's device and the files that stand there.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/byte_range.h"
#include "base/digest.h"
#include "base/error.h"
#include "image/file_table.h"
#include "image/tree/merge.h"
#include "proto/prefetch_list.h"

namespace hydrant::image {

// A range of a device, and when after the mount it was read or should be here.
struct TimedRange {
  ByteRange device;
  uint32_t ms = 0;
  bool operator==(const TimedRange&) const = default;
};

// The parts of files that stand in `touched`, in its order. Parts of a file are whole cells of 64 KiB, clipped to the
// file.
std::vector<proto::PrefetchEntry> entries_of(const Digest& layer, const FileTable& files,
                                             const std::vector<TimedRange>& touched);

// Where the layer's entries stand in its device, by time; entries of files that are not there are skipped.
std::vector<TimedRange> ranges_of(const proto::PrefetchList& list, const Digest& layer, const FileTable& files);

// One more start. Keeps what at least half of the runs have read, in the order in which they did, and of that the first
// kMaxPrefetchBytes.
constexpr uint64_t kMaxPrefetchBytes = 256 << 20;
void add_run(proto::PrefetchList& list, const std::vector<proto::PrefetchEntry>& run);

// The data of what is at or under `path` of the tree ("" is everything; no leading '/'), once for each inode.
// kNotFound.
struct TreeData {
  std::vector<std::vector<ByteRange>> devices;  // by layer
  uint64_t files = 0;
  uint64_t bytes = 0;  // of data, holes not counted
};
Result<> collect(const Tree& tree, std::string_view path, TreeData& out);

}  // namespace hydrant::image
