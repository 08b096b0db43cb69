// The layout of a device that only all of its layer yields: an EROFS image with files compressed inside of it.
#pragma once

#include <memory>
#include <string>

#include "image/index/layer_index.h"
#include "image/layout.h"

namespace hydrant::image {

// Such a device is filled while the layer streams by for its index. What is lost of it later, to culling or rot, costs
// the layer once more: every fill is of the whole device.
class DecodedLayout final : public Layout {
 public:
  // `spool`: a directory with room for the image, which stands there without a name while a fill goes on.
  DecodedLayout(std::shared_ptr<const LayerIndex> index, std::string spool)
      : index_(std::move(index)), spool_(std::move(spool)) {}

  uint64_t device_size() const override { return index_->ident().device_size; }
  uint64_t granule() const override { return index_->ident().granule; }
  Fill plan(ByteRange wanted) const override;
  uint64_t decoder_memory() const override;
  // Hands out nothing before the layer's digest is known to be right.
  std::unique_ptr<Decoder> decoder(const Fill& fill, DeviceSink sink) const override;
  Result<> prove(uint64_t offset, Bytes granules) const override;

 private:
  class Decoding;
  const std::shared_ptr<const LayerIndex> index_;  // also of whoever reads its file table
  const std::string spool_;
};

}  // namespace hydrant::image
