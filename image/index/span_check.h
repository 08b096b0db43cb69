// Proves what digests of stored bytes do not: that each span of a gzip layer, entered at its own checkpoint and with
// the window that the index has for it, yields what the stream has there.
#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "base/digest.h"
#include "image/gzip/span_decoder.h"
#include "image/index/layer_index.h"

namespace hydrant::image {

// Holds one span in memory. Not thread-safe.
class SpanCheck {
 public:
  // An index that is proven as stored, of a gzip layer. It outlives the check.
  explicit SpanCheck(const LayerIndex& index);

  // The layer from its first byte, cut anywhere. kCorrupt: a span is not what the index says.
  Result<> feed(Bytes stored);
  // The layer is complete; `diff_id` is the tar's.
  Result<> finish(const Digest& diff_id);

 private:
  Result<> take_plain(Bytes plain);
  Result<> enter_span();
  tl::unexpected<Error> lie(size_t span) const;

  const LayerIndex& index_;
  SpanDecoder stream_;
  Sha256 tar_;
  uint64_t plain_at_ = 0;
  Sha256 span_tar_;
  std::vector<Digest> expected_;  // of each span's plain bytes, as the stream has them
  uint64_t stored_at_ = 0;
  Buffer gathered_;  // stored bytes of the span that is next
  std::vector<Digest> entered_;
};

}  // namespace hydrant::image
