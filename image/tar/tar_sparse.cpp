#include "image/tar/tar_sparse.h"

#include "base/byte_range.h"
#include "image/tar/tar_header.h"

namespace hydrant::image {
namespace {

struct OldMapShape {
  size_t runs_at;
  size_t runs;
  size_t more_at;
};

constexpr size_t kNumber = 12;
constexpr size_t kRealSizeAt = 483;
constexpr OldMapShape kInHeader{386, 4, 482};
constexpr OldMapShape kInExtension{0, 21, 504};

}  // namespace

Result<bool> append_old_runs(Bytes block, OldSparseBlock kind, std::vector<SparseRun>& runs) {
  const OldMapShape& shape = kind == OldSparseBlock::kHeader ? kInHeader : kInExtension;
  for (size_t i = 0; i < shape.runs; ++i) {
    Bytes run = block.subspan(shape.runs_at + i * 2 * kNumber, 2 * kNumber);
    if (run[kNumber] == std::byte{0}) break;  // an unused slot
    HYDRANT_TRY(uint64_t offset, decode_tar_size(run.first(kNumber)));
    HYDRANT_TRY(uint64_t length, decode_tar_size(run.subspan(kNumber)));
    runs.push_back({offset, length});
  }
  return block[shape.more_at] != std::byte{0};
}

Result<uint64_t> old_real_size(Bytes block) { return decode_tar_size(block.subspan(kRealSizeAt, kNumber)); }

Result<> PaxSparseMap::add_number(uint64_t number) {
  if (!count_) {
    if (number > max_runs_) return fail(Code::kUnsupported, "a sparse file has too many runs");
    count_ = number;
  } else if (!offset_) {
    offset_ = number;
  } else {
    runs_.push_back({*offset_, number});
    offset_.reset();
  }
  return {};
}

Result<bool> PaxSparseMap::add_block(Bytes block) {
  constexpr unsigned kMaxDigits = 18;
  for (std::byte byte : block) {
    if (complete()) return true;  // the rest is padding
    char c = static_cast<char>(byte);
    if (c == '\n' && digits_ > 0) {
      HYDRANT_TRY_VOID(add_number(number_));
      number_ = digits_ = 0;
    } else if (c >= '0' && c <= '9' && digits_ < kMaxDigits) {
      number_ = number_ * 10 + (c - '0');
      ++digits_;
    } else {
      return fail(Code::kCorrupt, "a sparse map is malformed");
    }
  }
  return complete();
}

Result<std::vector<TarSegment>> place_runs(const std::vector<SparseRun>& runs, uint64_t tar_offset,
                                           uint64_t payload_size, uint64_t real_size) {
  std::vector<TarSegment> segments;
  uint64_t file_end = 0;  // of the runs so far
  uint64_t used = 0;      // of the payload
  for (const SparseRun& run : runs) {
    auto range = make_range(run.file_offset, run.length);
    if (!range || range->begin < file_end || range->end > real_size || run.length > payload_size - used) {
      return fail(Code::kCorrupt, "a sparse map contradicts the file's size");
    }
    file_end = range->end;
    if (run.length > 0) segments.push_back({run.file_offset, tar_offset + used, run.length});
    used += run.length;
  }
  if (used != payload_size) return fail(Code::kCorrupt, "a sparse map does not cover its data");
  return segments;
}

}  // namespace hydrant::image
