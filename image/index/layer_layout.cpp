#include "image/index/layer_layout.h"

#include <optional>

#include "base/check.h"
#include "image/gzip/span_decoder.h"
#include "image/index/chunk_layout.h"
#include "image/index/decoded_layout.h"
#include "image/index/row_map.h"
#include "image/zstd/zstd_span_decoder.h"
#include "proto/merkle.h"

namespace hydrant::image {

namespace {
// More than the codes in front of a deflate block take.
constexpr uint64_t kBlockHeader = 4096;
}  // namespace

LayerLayout::~LayerLayout() {
  if (fringes_) fringes_->forget_layout(this);
}

LayerLayout::Kept LayerLayout::fringe(uint64_t granule, Fringes::Side side) const {
  return fringes_ ? fringes_->find({this, granule, side}) : nullptr;
}

Fill LayerLayout::plan(ByteRange wanted) const {
  check_wanted(wanted);
  const ByteRange device = whole_granules(wanted);
  const ByteRange tar = plain_range(index_->rows(), device);
  if (!by_spans()) return {.device = device, .stored = tar};
  // The spans that hold it, less those that fringes make up for.
  const auto head = fringe(device.begin / granule(), Fringes::Side::kHead);
  const uint64_t from = head ? head->plain().end : tar.begin;
  const auto tail = fringe((device.end - 1) / granule(), Fringes::Side::kTail);
  const uint64_t to = tail && tail->plain().begin > from ? tail->plain().begin : tar.end;
  return planned(whole(index_->span_at(from), index_->span_at(to - 1)), head, to < tar.end ? tail : nullptr);
}

// Deflate data is decoded as it comes, and what stands behind the end of what was decoded is not missed. But a span
// that is proven as it is stored is proven whole.
bool LayerLayout::may_end_short() const {
  return by_spans() && index_->ident().compression == Compression::kGzip && !index_->proven_as_stored();
}

// Behind the granule that the border of two spans is in. Of the second span a piece that ends there takes the beginning
// alone, and the next piece takes the second span, but not the first.
uint64_t LayerLayout::piece_end(ByteRange wanted) const {
  check_wanted(wanted);
  const ByteRange device = whole_granules(wanted);
  if (!may_end_short()) return device.end;
  const auto& rows = index_->rows();
  const ByteRange tar = plain_range(rows, device);
  const size_t first = index_->span_at(tar.begin), last = index_->span_at(tar.end - 1);
  const ByteRange plain = whole(first, last).plain;
  const uint64_t end = std::max(device.end, completed_by(rows, plain, index_->ident()).end);
  if (end == device_size()) return end;
  const ByteRange at_border = plain_range(rows, granule_range(end / granule()));
  return at_border.begin < plain.end ? granule_range(end / granule()).end : end;
}

Fill LayerLayout::plan_piece(ByteRange wanted) const {
  check_wanted(wanted);
  if (!may_end_short()) return plan(wanted);
  const ByteRange device = whole_granules(wanted);
  const ByteRange tar = plain_range(index_->rows(), device);
  const auto head = fringe(device.begin / granule(), Fringes::Side::kHead);
  const uint64_t from = head ? head->plain().end : tar.begin;
  const size_t first = index_->span_at(from), last = index_->span_at(tar.end - 1);
  const Span border = index_->span(last);
  const uint64_t needed = tar.end - border.plain().begin;
  if (first == last || needed > 2 * granule()) return plan(wanted);
  Taken taken = whole(first, last);
  taken.plain.end = tar.end;
  // Deflate makes nothing longer by more than an eighth, unless its writer means to.
  taken.stored.end = std::min(taken.stored.end, border.stored().begin + needed + needed / 8 + kBlockHeader);
  return planned(taken, head, nullptr);
}

LayerLayout::Taken LayerLayout::whole(size_t first, size_t last) const {
  const Span from = index_->span(first), to = index_->span(last);
  return {.plain = {from.plain().begin, to.plain().end}, .stored = {from.stored().begin, to.stored().end}};
}

// What is taken completes, together with the fringes that meet it: `head` and `tail`, if the spans were chosen by them,
// or others that there are.
Fill LayerLayout::planned(const Taken& taken, Kept head, Kept tail) const {
  const ByteRange plain = taken.plain;
  const auto& rows = index_->rows();
  Fill fill{.device = completed_by(rows, plain, index_->ident()), .stored = taken.stored};
  auto leads_to = [&](const Kept& kept) { return kept && kept->plain().end == plain.begin; };
  auto goes_on = [&](const Kept& kept) { return kept && kept->plain().begin == plain.end; };
  const uint64_t before = round_up(fill.device.begin, granule()) / granule(), behind = fill.device.end / granule();
  if (fill.device.begin > 0) {
    if (!head) head = fringe(before - 1, Fringes::Side::kHead);
    const bool whole = plain_range(rows, granule_range(before - 1)).end <= plain.end;
    if (leads_to(head) && (whole || goes_on(tail))) {
      fill.device.begin = granule_range(before - 1).begin;
      fill.head = std::move(head);
      if (!whole) fill.tail = tail;
    }
  }
  if (fill.device.end < device_size() && !fill.tail) {
    if (!tail) tail = fringe(behind, Fringes::Side::kTail);
    if (goes_on(tail) && plain_range(rows, granule_range(behind)).begin >= plain.begin) {
      fill.device.end = granule_range(behind).end;
      fill.tail = std::move(tail);
    }
  }
  return fill;
}

// Decompresses from the first span's checkpoint straight through the others: only the start of a fill needs a window.
// Granules have leaves, or each span is proven as it is stored before anything looks into it.
class LayerLayout::Decoding final : public Layout::Decoder {
 public:
  Decoding(const LayerLayout& layout, const Fill& fill, DeviceSink sink)
      : layout_(layout),
        index_(*layout.index_),
        fill_(fill),
        tar_(plain_range(layout.index_->rows(), fill.device)),
        granules_(fill.device.begin, layout.granule(), sink),
        rows_(index_.rows(), fill.device, granules_) {
    if (!layout.by_spans()) {
      at_ = fill.stored.begin;
      return;
    }
    first_ = index_.span_at(fill.head ? fill.head->plain().end : tar_.begin);
    last_ = index_.span_at((fill.tail ? fill.tail->plain().begin : tar_.end) - 1);
    const Taken whole = layout.whole(first_, last_);
    short_ = layout.may_end_short() && fill_.stored.end < whole.stored.end;
    HYDRANT_CHECK(fill_.stored.begin == whole.stored.begin && (short_ || fill_.stored.end == whole.stored.end),
                  "decoder() of a fill that plan() did not make");
    const ByteRange plain{whole.plain.begin, short_ ? tar_.end : whole.plain.end};
    at_ = plain.begin;
    next_span_ = first_;
    if (!layout.fringes_) return;
    if (!fill.head && fill.device.begin > 0)
      before_ = left_over(fill.device.begin / layout.granule() - 1, Fringes::Side::kTail, plain);
    if (!fill.tail && fill.device.end < layout.device_size())
      behind_ = left_over(fill.device.end / layout.granule(), Fringes::Side::kHead, plain);
  }

  Result<> feed(Bytes stored) override {
    if (stored.size() > fill_.stored.size() - fed_)
      return fail(Code::kCorrupt, where() + ": more stored bytes than asked for");
    fed_ += stored.size();
    if (!layout_.by_spans()) return take(stored);
    return index_.proven_as_stored() ? gather(stored) : decode(stored);
  }

  Result<> finish() override {
    if (fed_ != fill_.stored.size())
      return fail(Code::kCorrupt, where() + ": got " + std::to_string(fed_) + " stored bytes instead of " +
                                      std::to_string(fill_.stored.size()));
    if (span_ || frames_)
      if (auto whole = frames_ ? frames_->finish() : span_->finish(); !whole)
        return fail(std::move(whole).error().in(where()));
    forget_used();
    if (fill_.tail) HYDRANT_TRY_VOID(rows_.take(fill_.tail->plain_offset, fill_.tail->bytes));
    HYDRANT_TRY_VOID(granules_.finish(fill_.device.end));
    for (LeftOver* left : {&before_, &behind_})
      if (!left->plain.empty() && left->bytes.size() == left->plain.size())
        layout_.fringes_->keep(left->key, {left->plain.begin, std::move(left->bytes)});
    return {};
  }

 private:
  // Bytes of a granule that only begins, or ends, in what is decoded.
  struct LeftOver {
    Fringes::Key key;
    ByteRange plain{0, 0};
    Buffer bytes;

    void take(uint64_t offset, Bytes tar) {
      const ByteRange part = intersect({offset, offset + tar.size()}, plain);
      if (part.empty()) return;
      const Bytes ours = tar.subspan(part.begin - offset, part.size());
      bytes.insert(bytes.end(), ours.begin(), ours.end());
    }
  };

  // Headers of many empty files may stand between a granule's bytes: too much is not worth keeping.
  LeftOver left_over(uint64_t granule, Fringes::Side side, ByteRange decoded) const {
    const ByteRange whole = plain_range(index_.rows(), layout_.granule_range(granule));
    const ByteRange part = intersect(whole, decoded);
    const bool one_half = side == Fringes::Side::kHead ? part.begin == whole.begin : part.end == whole.end;
    if (part.empty() || !one_half || part.size() > 2 * layout_.granule()) return {};
    return {{&layout_, granule, side}, part, {}};
  }

  void forget_used() {
    const uint64_t size = layout_.granule();
    if (fill_.head) layout_.fringes_->forget({&layout_, fill_.device.begin / size, Fringes::Side::kHead});
    if (fill_.tail) layout_.fringes_->forget({&layout_, (fill_.device.end - 1) / size, Fringes::Side::kTail});
  }

  std::string where() const {
    return "layer " + index_.ident().digest.text() + " device bytes " + std::to_string(fill_.device.begin);
  }

  // Spans are decoded when they are whole and have their digest. The byte that two share was decoded with the first.
  Result<> gather(Bytes stored) {
    while (!stored.empty()) {
      const ByteRange wanted = index_.span(next_span_).stored();
      const Bytes part = stored.first(std::min<uint64_t>(stored.size(), wanted.size() - gathered_.size()));
      stored = stored.subspan(part.size());
      append(gathered_, part);
      if (gathered_.size() < wanted.size()) break;
      if (sha256(gathered_) != index_.stored_digests()[next_span_])
        return fail(Code::kCorrupt, "layer " + index_.ident().digest.text() + ": stored bytes " +
                                        std::to_string(wanted.begin) + "-" + std::to_string(wanted.end) +
                                        " do not match their digest");
      HYDRANT_TRY_VOID(decode(Bytes(gathered_).subspan(shared_)));
      ++next_span_;
      shared_ = next_span_ < index_.span_count() && index_.span(next_span_).start.bits ? 1 : 0;
      gathered_.erase(gathered_.begin(), gathered_.end() - ptrdiff_t(shared_));
    }
    return {};
  }

  Result<> decode(Bytes stored) {
    if (!entered_) HYDRANT_TRY_VOID(enter());
    if (index_.ident().compression == Compression::kNone) return take(stored);
    auto taker = [this](Bytes piece) { return take(piece); };
    auto fed = frames_ ? frames_->feed(stored, taker) : span_->feed(stored, taker);
    if (!fed && fed.error().code == Code::kCorrupt) {
      forget_used();  // perhaps they are what is wrong
      return fail(std::move(fed).error().in(where()));
    }
    return fed;
  }

  Result<> enter() {
    entered_ = true;
    if (fill_.head) HYDRANT_TRY_VOID(rows_.take(fill_.head->plain_offset, fill_.head->bytes));
    const Span to = index_.span(last_);
    // Past what the granules need only to where a fringe ends.
    const Span all{index_.span(first_).start, fill_.stored.end,
                   behind_.plain.empty() ? std::min(tar_.end, to.plain_end) : to.plain_end};
    if (index_.ident().compression == Compression::kNone) return {};
    if (index_.ident().compression == Compression::kZstd) {
      frames_.emplace(all);
      return {};
    }
    HYDRANT_TRY(auto window, index_.window(first_));
    span_.emplace(all, window);
    return {};
  }

  Result<> take(Bytes tar) {
    before_.take(at_, tar);
    behind_.take(at_, tar);
    HYDRANT_TRY_VOID(rows_.take(at_, tar));
    at_ += tar.size();
    return {};
  }

  const LayerLayout& layout_;
  const LayerIndex& index_;  // the layout's
  const Fill fill_;
  const ByteRange tar_;  // what the device range needs
  GranuleAssembler granules_;
  RowWalk rows_;
  uint64_t at_ = 0;              // tar offset of the next plain byte
  size_t first_ = 0, last_ = 0;  // spans, if there are any
  bool short_ = false;           // the last of them is not taken whole
  LeftOver before_, behind_;     // of fill_.device
  uint64_t fed_ = 0;
  // Of spans that are proven as they are stored.
  size_t next_span_ = 0;
  Buffer gathered_;    // of its stored bytes
  size_t shared_ = 0;  // of those, how many went with the span before
  // Of a layer by spans, from its first byte on: gzip, zstd or neither.
  bool entered_ = false;
  std::optional<SpanDecoder> span_;
  std::optional<ZstdSpanDecoder> frames_;
};

Result<> LayerLayout::prove(uint64_t offset, Bytes granules) const {
  if (index_->proven_as_stored()) return {};
  if (auto wrong = proto::first_mismatch(index_->leaves(), granule(), offset, granules))
    return fail(Code::kCorrupt, "layer " + index_->ident().digest.text() + ": device bytes " +
                                    std::to_string(wrong->begin) + "-" + std::to_string(wrong->end) +
                                    " do not match their digest");
  return {};
}

std::unique_ptr<Layout::Decoder> LayerLayout::decoder(const Fill& fill, DeviceSink sink) const {
  check_planned(fill);
  return std::make_unique<Decoding>(*this, fill, std::move(sink));
}

std::shared_ptr<const Layout> make_layout(std::shared_ptr<const LayerIndex> index, std::shared_ptr<Fringes> fringes,
                                          const std::string& spool) {
  if (index->decoded().size > 0) return std::make_shared<DecodedLayout>(std::move(index), spool);
  if (index->by_chunks()) return std::make_shared<ChunkLayout>(std::move(index));
  return std::make_shared<LayerLayout>(std::move(index), std::move(fringes));
}

}  // namespace hydrant::image
