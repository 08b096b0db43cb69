#include "image/index/layer_layout.h"

#include <algorithm>
#include <optional>

#include "base/check.h"
#include "image/gzip/span_decoder.h"
#include "image/index/granule_assembler.h"
#include "image/index/merkle.h"
#include "image/zstd/zstd_span_decoder.h"

namespace hydrant::image {
namespace {

using Rows = std::vector<LayoutRow>;

// The first row that ends behind the device (or tar) offset.
Rows::const_iterator row_at_device(const Rows& rows, uint64_t offset) {
  return std::partition_point(rows.begin(), rows.end(),
                              [&](const LayoutRow& row) { return row.device_offset + row.length <= offset; });
}
Rows::const_iterator row_at_tar(const Rows& rows, uint64_t offset) {
  return std::partition_point(rows.begin(), rows.end(),
                              [&](const LayoutRow& row) { return row.tar_offset + row.length <= offset; });
}

// Takes a stretch of the tar in order and puts its file data where the rows say, inside `device` only.
class RowWalk {
 public:
  RowWalk(const Rows& rows, ByteRange device, GranuleAssembler& out)
      : row_(row_at_device(rows, device.begin)), end_(rows.end()), device_(device), out_(out) {}

  Result<> take(uint64_t tar_offset, Bytes bytes) {
    const ByteRange piece{tar_offset, tar_offset + bytes.size()};
    for (; row_ != end_ && row_->device_offset < device_.end; ++row_) {
      const uint64_t shift = row_->device_offset - row_->tar_offset;  // modulo 2^64
      const ByteRange wanted = intersect({row_->device_offset, row_->device_offset + row_->length}, device_);
      const ByteRange part = intersect({wanted.begin - shift, wanted.end - shift}, piece);
      if (!part.empty())
        HYDRANT_TRY_VOID(out_.put(part.begin + shift, bytes.subspan(part.begin - tar_offset, part.size())));
      if (wanted.end - shift > piece.end) break;
    }
    return {};
  }

 private:
  Rows::const_iterator row_;
  const Rows::const_iterator end_;
  const ByteRange device_;
  GranuleAssembler& out_;
};

}  // namespace

// From the first to the last byte of the tar that `device` holds. Every granule holds some: LayerIndex refuses rows
// that leave two blocks, or the last one, without data.
ByteRange LayerLayout::tar_range(ByteRange device) const {
  const Rows& rows = index_->rows();
  const auto first = row_at_device(rows, device.begin);
  auto last =
      std::partition_point(first, rows.end(), [&](const LayoutRow& row) { return row.device_offset < device.end; });
  HYDRANT_CHECK(first != last, "a granule without data: decode_rows refuses such rows");
  --last;
  return {first->tar_offset + (std::max(device.begin, first->device_offset) - first->device_offset),
          last->tar_offset + (std::min(device.end, last->device_offset + last->length) - last->device_offset)};
}

// The granules all of whose data stands in `tar`.
ByteRange LayerLayout::completed_by(ByteRange tar) const {
  const Rows& rows = index_->rows();
  uint64_t begin = 0, end = device_size();  // the first byte after data before `tar`, the first of data behind it
  if (auto row = row_at_tar(rows, tar.begin); row != rows.end() && row->tar_offset < tar.begin) {
    begin = row->device_offset + (tar.begin - row->tar_offset);
  } else if (row != rows.begin()) {
    begin = std::prev(row)->device_offset + std::prev(row)->length;
  }
  if (auto row = row_at_tar(rows, tar.end); row != rows.end())
    end = row->device_offset + (std::max(tar.end, row->tar_offset) - row->tar_offset);
  begin = round_up(begin, granule());
  return {begin, std::max(begin, end == device_size() ? end : round_down(end, granule()))};
}

Fill LayerLayout::plan(ByteRange wanted) const {
  HYDRANT_CHECK(!wanted.empty() && wanted.end <= device_size(), "plan() for a range outside the device");
  Fill fill;
  fill.device = align_outward(wanted, granule());
  fill.device.end = std::min(fill.device.end, device_size());
  const ByteRange tar = tar_range(fill.device);
  if (index_->ident().compression == Compression::kNone) {
    fill.stored = tar;
    return fill;
  }
  const Span first = index_->span(index_->span_at(tar.begin)), last = index_->span(index_->span_at(tar.end - 1));
  fill.stored = {first.stored().begin, last.stored().end};
  fill.device = completed_by({first.plain().begin, last.plain().end});
  return fill;
}

// Decompresses from the first span's checkpoint straight through the others: only the start of a fill needs a window.
class LayerLayout::Decoding final : public Layout::Decoder {
 public:
  Decoding(const LayerLayout& layout, const Fill& fill, DeviceSink sink)
      : index_(*layout.index_),
        fill_(fill),
        tar_(layout.tar_range(fill.device)),
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
    if (leaf_digest(bytes) != index_.leaves()[offset / index_.ident().granule])
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
  HYDRANT_CHECK(fill.device.begin % granule() == 0 && !fill.device.empty() && fill.device.end <= device_size() &&
                    (fill.device.end % granule() == 0 || fill.device.end == device_size()),
                "decoder() of a fill that plan() did not make");
  return std::make_unique<Decoding>(*this, fill, std::move(sink));
}

}  // namespace hydrant::image
