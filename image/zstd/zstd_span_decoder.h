// Decodes a stretch of a zstd stream, the frames from a checkpoint on, as its stored bytes arrive.
#pragma once

#include <functional>

#include "base/bytes.h"
#include "base/error.h"
#include "image/checkpoint.h"
#include "image/zstd/zstd_context.h"

namespace hydrant::image {

// Yields the span's plain length and never more. What it yields is as good as the stored bytes: callers check their own
// digests. A span may be several neighbouring ones made one. Not thread-safe; several decoders are independent.
class ZstdSpanDecoder {
 public:
  // Takes plain bytes in order, at most 256 KiB, valid during the call. Its error ends the feed.
  using Sink = std::function<Result<>(Bytes)>;

  explicit ZstdSpanDecoder(const Span& span);

  // The next bytes of span.stored(), cut anywhere. What stands behind the span's plain end is not looked at. kCorrupt
  // when the bytes are no zstd; not to be fed after an error.
  Result<> feed(Bytes stored, const Sink& sink);
  // kCorrupt when the stored bytes have ended before the span did.
  Result<> finish() const;

 private:
  uint64_t left_;       // plain bytes still to yield
  uint64_t taken_ = 0;  // stored bytes so far
  ZstdContext context_ = make_zstd_context();
  Buffer piece_;
};

}  // namespace hydrant::image
