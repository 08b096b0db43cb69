// The layout of a layer's device over its stored blob: gzip and zstd through checkpoints, plain tar by offset.
#pragma once

#include <memory>

#include "image/index/fringes.h"
#include "image/index/layer_index.h"
#include "image/layout.h"

namespace hydrant::image {

// Spans end in the middle of granules. With `fringes` the half that a fill has decoded in vain is kept, and the fill of
// its neighbour fetches no span twice; without, it fetches both.
class LayerLayout final : public Layout {
 public:
  // The layout shares the index with whoever reads its file table.
  explicit LayerLayout(std::shared_ptr<const LayerIndex> index, std::shared_ptr<Fringes> fringes = nullptr)
      : index_(std::move(index)),
        fringes_(std::move(fringes)),
        held_(index_->proven_as_stored() ? index_->widest_span() : 0) {}
  ~LayerLayout() override;

  uint64_t device_size() const override { return index_->ident().device_size; }
  uint64_t granule() const override { return index_->ident().granule; }
  Fill plan(ByteRange wanted) const override;
  uint64_t piece_end(ByteRange wanted) const override;
  Fill plan_piece(ByteRange wanted) const override;
  // And two halves for the fringes.
  uint64_t decoder_memory() const override { return held_ + (fringes_ ? 3 : 1) * granule(); }
  std::unique_ptr<Decoder> decoder(const Fill& fill, DeviceSink sink) const override;
  Result<> prove(uint64_t offset, Bytes granules) const override;

 private:
  class Decoding;
  bool by_spans() const { return index_->span_count() > 0; }
  using Kept = std::shared_ptr<const Fringe>;  // also held by fills that were planned with it; null: not known
  Kept fringe(uint64_t granule, Fringes::Side side) const;
  // What is taken of a run of spans: its plain bytes, and the stored ones that they are decoded from.
  struct Taken {
    ByteRange plain, stored;
  };
  Taken whole(size_t first, size_t last) const;
  Fill planned(const Taken& taken, Kept head, Kept tail) const;
  bool may_end_short() const;

  const std::shared_ptr<const LayerIndex> index_;
  const std::shared_ptr<Fringes> fringes_;
  const uint64_t held_;  // stored bytes, until they are proven
};

// What suits the index: by spans, by chunks or as a whole. `spool`: see DecodedLayout.
std::shared_ptr<const Layout> make_layout(std::shared_ptr<const LayerIndex> index,
                                          std::shared_ptr<Fringes> fringes = nullptr,
                                          const std::string& spool = "/var/tmp");

}  // namespace hydrant::image
