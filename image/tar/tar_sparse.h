// The maps of sparse members: old GNU ones in header blocks, pax 1.0 ones at the start of the payload.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "base/error.h"
#include "image/tar/tar_pax.h"
#include "image/tar/tar_reader.h"

namespace hydrant::image {

enum class OldSparseBlock { kHeader, kExtension };

// Appends the runs of one block of an old GNU map; true when an extension block follows.
Result<bool> append_old_runs(Bytes block, OldSparseBlock kind, std::vector<SparseRun>& runs);
// The file's size, holes included, from the header of a type 'S' member.
Result<uint64_t> old_real_size(Bytes block);

// A pax 1.0 map: decimal lines, first the number of runs, then offset and length of each, padded to a block.
class PaxSparseMap {
 public:
  explicit PaxSparseMap(uint64_t max_runs) : max_runs_(max_runs) {}

  // True when `block` was the map's last.
  Result<bool> add_block(Bytes block);
  std::vector<SparseRun> take_runs() { return std::move(runs_); }

 private:
  Result<> add_number(uint64_t number);
  bool complete() const { return count_ && runs_.size() == *count_ && !offset_; }

  uint64_t max_runs_;
  std::optional<uint64_t> count_;
  std::optional<uint64_t> offset_;  // of the run whose length comes next
  uint64_t number_ = 0;             // the line so far
  unsigned digits_ = 0;
  std::vector<SparseRun> runs_;
};

// The segments of runs whose bytes stand one after the other from `tar_offset`; runs without bytes are left out.
// kCorrupt unless the runs ascend, stay inside `real_size` and use up exactly `payload_size` bytes. (GNU tar pads each
// run to a block; it makes no run but the last one that would need it.)
Result<std::vector<TarSegment>> place_runs(const std::vector<SparseRun>& runs, uint64_t tar_offset,
                                           uint64_t payload_size, uint64_t real_size);

}  // namespace hydrant::image
