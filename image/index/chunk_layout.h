// The layout of a layer's device over its stored blob by a table of contents: each chunk is entered at the member or
// frame that it stands in, and proven by its own digest.
#pragma once

#include <memory>

#include "image/index/layer_index.h"
#include "image/layout.h"

namespace hydrant::image {

class ChunkLayout final : public Layout {
 public:
  // The layout shares the index, which must be by chunks, with whoever reads its file table.
  explicit ChunkLayout(std::shared_ptr<const LayerIndex> index);

  uint64_t device_size() const override { return index_->ident().device_size; }
  uint64_t granule() const override { return index_->ident().granule; }
  uint64_t decoder_memory() const override { return longest_ + granule(); }
  // Granules know nothing of chunks: a fill takes whole members, and every granule that these complete.
  Fill plan(ByteRange wanted) const override;
  std::unique_ptr<Decoder> decoder(const Fill& fill, DeviceSink sink) const override;

 private:
  class Decoding;
  std::shared_ptr<const LayerIndex> index_;
  uint64_t longest_ = 0;  // chunk
};

}  // namespace hydrant::image
