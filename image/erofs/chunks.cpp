#include "image/erofs/chunks.h"

#include <algorithm>
#include <bit>

#include "base/byte_range.h"

namespace hydrant::image {

using proto::erofs::kBlockSize;

Result<> find_runs(const FileEntry& file, uint64_t device_size, std::vector<BlockRun>& runs) {
  runs.clear();
  uint64_t end = 0;  // of the pieces so far
  for (const DataPiece& piece : file.data) {
    auto in_file = make_range(piece.file_offset, piece.length);
    auto on_device = make_range(piece.device_offset, piece.length);
    if (!in_file || in_file->empty() || in_file->begin < end || in_file->end > file.size || !on_device ||
        on_device->end > device_size || (piece.file_offset ^ piece.device_offset) % kBlockSize != 0) {
      return fail(Code::kCorrupt, "its data pieces contradict each other, its size or its device");
    }
    end = in_file->end;
    BlockRun next{.file_block = piece.file_offset / kBlockSize, .device_block = piece.device_offset / kBlockSize};
    next.count = (in_file->end + kBlockSize - 1) / kBlockSize - next.file_block;
    if (runs.empty()) {
      runs.push_back(next);
      continue;
    }
    BlockRun& last = runs.back();
    bool share_block = next.file_block < last.file_end();
    bool same_shift = next.device_block - next.file_block == last.device_block - last.file_block;
    if (share_block && !same_shift) return fail(Code::kCorrupt, "two data pieces place one block at two places");
    if (same_shift && next.file_block <= last.file_end()) {
      last.count = next.file_end() - last.file_block;
    } else {
      runs.push_back(next);
    }
  }
  return {};
}

ChunkPlan plan_chunks(const std::vector<BlockRun>& runs, uint64_t blocks) {
  ChunkPlan plan;
  plan.bits = std::min<unsigned>(std::bit_width(blocks - 1), proto::erofs::kMaxChunkBits);
  for (const BlockRun& run : runs) {
    for (uint64_t edge : {run.file_block, run.file_end()}) {
      if (edge > 0 && edge < blocks) plan.bits = std::min<unsigned>(plan.bits, std::countr_zero(edge));
    }
  }
  plan.count = ((blocks - 1) >> plan.bits) + 1;
  return plan;
}

ChunkPlan limit_chunks(const ChunkPlan& plan, uint64_t blocks, unsigned longest_bits) {
  const unsigned bits = std::min(plan.bits, longest_bits);
  return {.bits = bits, .count = ((blocks - 1) >> bits) + 1};
}

bool has_inner_hole(const std::vector<BlockRun>& runs) {
  uint64_t end = 0;
  for (const BlockRun& run : runs) {
    if (run.file_block > end) return true;
    end = run.file_end();
  }
  return false;
}

}  // namespace hydrant::image
