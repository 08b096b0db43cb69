// A decompression context with our limits, and what its errors mean.
#pragma once

#include <zstd.h>

#include <memory>
#include <string_view>

#include "base/error.h"

namespace hydrant::image {

struct FreeZstdContext {
  void operator()(ZSTD_DCtx* context) const { ZSTD_freeDCtx(context); }
};
using ZstdContext = std::unique_ptr<ZSTD_DCtx, FreeZstdContext>;

ZstdContext make_zstd_context();

// `code` is one that ZSTD_isError() is true of; `at` is the stored offset.
Error zstd_error(size_t code, uint64_t at);

}  // namespace hydrant::image
