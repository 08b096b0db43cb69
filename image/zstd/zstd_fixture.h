// For tests: zstd streams as different writers make them.
#pragma once

#include <zstd.h>

#include <algorithm>

#include "base/bytes.h"
#include "base/check.h"

namespace hydrant::image::fixture {

// Frames of `frame` plain bytes each; one of all when 0.
inline Buffer zstd(Bytes plain, size_t frame = 0, int level = 3, bool checksum = true) {
  Buffer out;
  ZSTD_CCtx* context = ZSTD_createCCtx();
  ZSTD_CCtx_setParameter(context, ZSTD_c_compressionLevel, level);
  ZSTD_CCtx_setParameter(context, ZSTD_c_checksumFlag, checksum);
  do {
    const Bytes part = plain.first(frame ? std::min(frame, plain.size()) : plain.size());
    plain = plain.subspan(part.size());
    Buffer packed(ZSTD_compressBound(part.size()));
    const size_t size = ZSTD_compress2(context, packed.data(), packed.size(), part.data(), part.size());
    HYDRANT_CHECK(!ZSTD_isError(size), "the fixture's zstd parameters");
    append(out, Bytes(packed).first(size));
  } while (!plain.empty());
  ZSTD_freeCCtx(context);
  return out;
}

inline Buffer skippable(Bytes content, unsigned kind = 0) {
  Buffer out;
  append_le<uint32_t>(out, 0x184d2a50 + kind);
  append_le<uint32_t>(out, uint32_t(content.size()));
  append(out, content);
  return out;
}

}  // namespace hydrant::image::fixture
