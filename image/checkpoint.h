// Places at which a compressed stream can be entered, and the stretches (spans) between them.
#pragma once

#include <cstdint>

#include "base/byte_range.h"
#include "base/bytes.h"

namespace hydrant::image {

inline constexpr uint32_t kWindowSize = 32768;  // RFC 1951: no distance reaches further back

// Where a span starts. At the start of a member (gzip) or frame (zstd) decoding begins with its header and no window.
// Elsewhere, in gzip alone, it begins at a deflate block: its first `bits` bits are the top bits of the byte at
// stored_offset - 1, and its window is the (at most) 32 KiB of plain bytes before plain_offset that belong to the same
// member.
struct Checkpoint {
  uint64_t stored_offset = 0;
  uint64_t plain_offset = 0;
  uint8_t bits = 0;  // 0..7
  bool member_start = true;
  bool operator==(const Checkpoint&) const = default;
};

// A checkpoint and the one after it (or the end of the stream). The two spans that meet inside a byte share it.
struct Span {
  Checkpoint start;
  uint64_t stored_end = 0;
  uint64_t plain_end = 0;

  ByteRange stored() const { return {start.stored_offset - (start.bits ? 1 : 0), stored_end}; }
  ByteRange plain() const { return {start.plain_offset, plain_end}; }
};

}  // namespace hydrant::image
