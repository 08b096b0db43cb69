#include "image/index/zstd_frame.h"

#include <zstd.h>

#include "base/check.h"

namespace hydrant::image {

Buffer zstd_compress(Bytes plain, int level) {
  Buffer frame(ZSTD_compressBound(plain.size()));
  const size_t size = ZSTD_compress(frame.data(), frame.size(), plain.data(), plain.size(), level);
  HYDRANT_CHECK(!ZSTD_isError(size), "zstd refuses a buffer of its own bound");
  frame.resize(size);
  frame.shrink_to_fit();
  return frame;
}

Result<Buffer> zstd_decompress(Bytes frame, uint64_t limit) {
  const unsigned long long size = ZSTD_getFrameContentSize(frame.data(), frame.size());
  if (size == ZSTD_CONTENTSIZE_UNKNOWN || size == ZSTD_CONTENTSIZE_ERROR || size > limit)
    return fail(Code::kCorrupt, "zstd frame of bad size");
  Buffer plain(size);
  if (ZSTD_decompress(plain.data(), plain.size(), frame.data(), frame.size()) != size)
    return fail(Code::kCorrupt, "zstd frame does not decode");
  return plain;
}

}  // namespace hydrant::image
