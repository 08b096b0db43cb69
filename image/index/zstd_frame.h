// Single zstd frames of known size (RFC 8878), as sections and windows are stored.
#pragma once

#include "base/bytes.h"
#include "base/error.h"

namespace hydrant::image {

Buffer zstd_compress(Bytes plain, int level);

// kCorrupt unless the frame is whole and yields between 0 and `limit` bytes, as its header announces.
Result<Buffer> zstd_decompress(Bytes frame, uint64_t limit);

}  // namespace hydrant::image
