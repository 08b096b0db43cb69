// The layout of a layer's device over its stored blob: gzip and zstd through checkpoints, plain tar by offset.
#pragma once

#include <memory>

#include "image/index/layer_index.h"
#include "image/layout.h"

namespace hydrant::image {

class LayerLayout final : public Layout {
 public:
  // The layout shares the index with whoever reads its file table.
  explicit LayerLayout(std::shared_ptr<const LayerIndex> index) : index_(std::move(index)) {}

  uint64_t device_size() const override { return index_->ident().device_size; }
  uint64_t granule() const override { return index_->ident().granule; }
  Fill plan(ByteRange wanted) const override;
  std::unique_ptr<Decoder> decoder(const Fill& fill, DeviceSink sink) const override;

 private:
  class Decoding;
  std::shared_ptr<const LayerIndex> index_;
};

// What suits the index: by spans or by chunks.
std::shared_ptr<const Layout> make_layout(std::shared_ptr<const LayerIndex> index);

}  // namespace hydrant::image
