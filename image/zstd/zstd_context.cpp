#include "image/zstd/zstd_context.h"

#include <zstd_errors.h>

#include <string>

#include "base/check.h"
#include "image/zstd/zstd_stream.h"

namespace hydrant::image {

ZstdContext make_zstd_context() {
  ZstdContext context(ZSTD_createDCtx());
  HYDRANT_CHECK(context, "zstd has no memory for its state");
  HYDRANT_CHECK(!ZSTD_isError(ZSTD_DCtx_setParameter(context.get(), ZSTD_d_windowLogMax, kMaxZstdWindowLog)),
                "zstd refuses its own default window limit");
  return context;
}

Error zstd_error(size_t code, uint64_t at) {
  const std::string where = " before stored byte " + std::to_string(at);
  switch (ZSTD_getErrorCode(code)) {
    case ZSTD_error_memory_allocation:
      return {.code = Code::kIo, .what = "zstd: no memory for a frame's window" + where, .retry = true};
    case ZSTD_error_frameParameter_windowTooLarge:
      return {.code = Code::kUnsupported, .what = "zstd: a frame's window is larger than 128 MiB" + where};
    case ZSTD_error_dictionary_wrong:
      return {.code = Code::kUnsupported, .what = "zstd: a frame needs a dictionary" + where};
    default: return {.code = Code::kCorrupt, .what = std::string("zstd: ") + ZSTD_getErrorName(code) + where};
  }
}

}  // namespace hydrant::image
