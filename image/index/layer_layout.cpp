#include "image/index/layer_layout.h"

#include <optional>

#include "base/check.h"
#include "image/gzip/span_decoder.h"
#include "image/index/chunk_layout.h"
#include "image/index/row_map.h"
#include "image/zstd/zstd_span_decoder.h"
#include "proto/merkle.h"

namespace hydrant::image {

Fill LayerLayout::plan(ByteRange wanted) const {
  check_wanted(wanted);
  Fill fill;
  fill.device = whole_granules(wanted);
  const ByteRange tar = plain_range(index_->rows(), fill.device);
  if (index_->ident().compression == Compression::kNone) {
    fill.stored = tar;
    return fill;
  }
  const Span first = index_->span(index_->span_at(tar.begin)), last = index_->span(index_->span_at(tar.end - 1));
  fill.stored = {first.stored().begin, last.stored().end};
  fill.device = completed_by(index_->rows(), {first.plain().begin, last.plain().end}, index_->ident());
  return fill;
}

// Decompresses from the first span's checkpoint straight through the others: only the start of a fill needs a window.
class LayerLayout::Decoding final : public Layout::Decoder {
 public:
  Decoding(const LayerLayout& layout, const Fill& fill, DeviceSink sink)
      : index_(*layout.index_),
        fill_(fill),
        tar_(plain_range(layout.index_->rows(), fill.device)),
        sink_(std::move(sink)),
        granules_(fill.device.begin, layout.granule(),
                  [this](uint64_t offset, Bytes bytes) { return prove(offset, bytes); }),
        rows_(index_.rows(), fill.device, granules_),
        at_(plain() ? fill.stored.begin : index_.span(index_.span_at(tar_.begin)).plain().begin) {}

  Result<> feed(Bytes stored) override {
    if (stored.size() > fill_.stored.size() - fed_)
      return fail(Code::kCorrupt, where() + ": more stored bytes than asked for");
    fed_ += stored.size();
    if (plain()) return take(stored);
    if (!span_ && !frames_) HYDRANT_TRY_VOID(enter());
    auto taker = [this](Bytes piece) { return take(piece); };
    auto fed = frames_ ? frames_->feed(stored, taker) : span_->feed(stored, taker);
    if (!fed && fed.error().code == Code::kCorrupt) return fail(std::move(fed).error().in(where()));
    return fed;
  }

  Result<> finish() override {
    if (fed_ != fill_.stored.size())
      return fail(Code::kCorrupt, where() + ": got " + std::to_string(fed_) + " stored bytes instead of " +
                                      std::to_string(fill_.stored.size()));
    if (span_ || frames_)
      if (auto whole = frames_ ? frames_->finish() : span_->finish(); !whole)
        return fail(std::move(whole).error().in(where()));
    return granules_.finish(fill_.device.end);
  }

 private:
  bool plain() const { return index_.ident().compression == Compression::kNone; }
  std::string where() const {
    return "layer " + index_.ident().digest.text() + " device bytes " + std::to_string(fill_.device.begin);
  }

  Result<> enter() {
    const size_t first = index_.span_at(tar_.begin);
    const Span from = index_.span(first), to = index_.span(index_.span_at(tar_.end - 1));
    HYDRANT_CHECK(from.stored().begin == fill_.stored.begin && to.stored().end == fill_.stored.end,
                  "decoder() of a fill that plan() did not make");
    const Span all{from.start, to.stored_end, tar_.end};
    if (index_.ident().compression == Compression::kZstd) {
      frames_.emplace(all);
      return {};
    }
    HYDRANT_TRY(auto window, index_.window(first));
    span_.emplace(all, window);
    return {};
  }

  Result<> take(Bytes tar) {
    HYDRANT_TRY_VOID(rows_.take(at_, tar));
    at_ += tar.size();
    return {};
  }

  Result<> prove(uint64_t offset, Bytes bytes) {
    if (proto::leaf_digest(bytes) != index_.leaves()[offset / index_.ident().granule])
      return fail(Code::kCorrupt, "layer " + index_.ident().digest.text() + ": device bytes " + std::to_string(offset) +
                                      "-" + std::to_string(offset + bytes.size()) + " do not match their digest");
    return sink_(offset, bytes);
  }

  const LayerIndex& index_;  // the layout's
  const Fill fill_;
  const ByteRange tar_;  // what the device range needs
  const DeviceSink sink_;
  GranuleAssembler granules_;
  RowWalk rows_;
  uint64_t at_;  // tar offset of the next plain byte
  uint64_t fed_ = 0;
  // Of a compressed layer, from its first byte on: gzip or zstd.
  std::optional<SpanDecoder> span_;
  std::optional<ZstdSpanDecoder> frames_;
};

std::unique_ptr<Layout::Decoder> LayerLayout::decoder(const Fill& fill, DeviceSink sink) const {
  check_planned(fill);
  return std::make_unique<Decoding>(*this, fill, std::move(sink));
}

std::shared_ptr<const Layout> make_layout(std::shared_ptr<const LayerIndex> index) {
  if (index->by_chunks()) return std::make_shared<ChunkLayout>(std::move(index));
  return std::make_shared<LayerLayout>(std::move(index));
}

}  // namespace hydrant::image
