// How a regular file's data pieces become chunk indexes.
#pragma once

#include <cstdint>
#include <vector>

#include "base/error.h"
#include "image/file_table.h"
#include "proto/erofs_layout.h"

namespace hydrant::image {

// Blocks of a file that follow each other in the file and on the device.
struct BlockRun {
  uint64_t file_block = 0;
  uint64_t device_block = 0;
  uint64_t count = 0;
  uint64_t file_end() const { return file_block + count; }
  uint64_t device_end() const { return device_block + count; }
};

// The fewest runs that cover the file's pieces, in `runs`. kCorrupt when pieces are unordered, leave the file or the
// device, or disagree about a block.
Result<> find_runs(const FileEntry& file, uint64_t device_size, std::vector<BlockRun>& runs);

struct ChunkPlan {
  unsigned bits = 0;   // chunk size: blocks as a power of two
  uint64_t count = 0;  // of indexes
};

// The largest chunks that no run begins or ends within, so the fewest indexes. `blocks` of the file is at least 1.
ChunkPlan plan_chunks(const std::vector<BlockRun>& runs, uint64_t blocks);

// The same for a file whose holes are filled with a run of zeros: no chunk is larger than `longest_bits` says.
ChunkPlan limit_chunks(const ChunkPlan& plan, uint64_t blocks, unsigned longest_bits);

// A hole that data follows.
bool has_inner_hole(const std::vector<BlockRun>& runs);

// Calls `emit(index)` for each chunk in order; chunks without a run are holes.
template <class Emit>
void make_chunks(const std::vector<BlockRun>& runs, const ChunkPlan& plan, uint16_t device, Emit&& emit) {
  auto run = runs.begin();
  for (uint64_t chunk = 0; chunk < plan.count; ++chunk) {
    uint64_t block = chunk << plan.bits;
    while (run != runs.end() && run->file_end() <= block) ++run;
    proto::erofs::ChunkIndex index;
    if (run != runs.end() && run->file_block <= block) {
      index.device = device;
      index.block = static_cast<uint32_t>(run->device_block + (block - run->file_block));
    }
    emit(index);
  }
}

}  // namespace hydrant::image
