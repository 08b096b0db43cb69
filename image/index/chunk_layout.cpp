#include "image/index/chunk_layout.h"

#include <algorithm>
#include <optional>

#include "base/check.h"
#include "image/gzip/span_decoder.h"
#include "image/index/row_map.h"
#include "image/zstd/zstd_span_decoder.h"

namespace hydrant::image {
namespace {

// The chunks [first, end) of one member, and where it stands.
struct Member {
  size_t first = 0, end = 0;
  ByteRange stored;  // up to the next one: the headers of other files may follow the data
};

Member member_of(const LayerIndex& index, size_t chunk) {
  const auto& chunks = index.chunks();
  const uint64_t offset = chunks[chunk].stored_offset;
  const auto from = std::partition_point(chunks.begin(), chunks.end(),
                                         [&](const Chunk& each) { return each.stored_offset < offset; });
  const auto to =
      std::partition_point(from, chunks.end(), [&](const Chunk& each) { return each.stored_offset == offset; });
  return {size_t(from - chunks.begin()),
          size_t(to - chunks.begin()),
          {offset, to == chunks.end() ? index.ident().stored_end : to->stored_offset}};
}

}  // namespace

ChunkLayout::ChunkLayout(std::shared_ptr<const LayerIndex> index) : index_(std::move(index)) {
  HYDRANT_CHECK(index_->by_chunks(), "an index by spans is LayerLayout's");
  for (const auto& chunk : index_->chunks()) longest_ = std::max(longest_, chunk.length);
}

Fill ChunkLayout::plan(ByteRange wanted) const {
  check_wanted(wanted);
  const ByteRange plain = plain_range(index_->rows(), whole_granules(wanted));
  const Member first = member_of(*index_, index_->chunk_at(plain.begin)),
               last = member_of(*index_, index_->chunk_at(plain.end - 1));
  return {
      completed_by(index_->rows(), {index_->chunk_begin(first.first), index_->chunk_begin(last.end)}, index_->ident()),
      {first.stored.begin, last.stored.end}};
}

// One member after the other; what stands between the data of chunks is decoded where it must be and dropped.
class ChunkLayout::Decoding final : public Layout::Decoder {
 public:
  Decoding(const ChunkLayout& layout, const Fill& fill, DeviceSink sink)
      : index_(*layout.index_),
        fill_(fill),
        sink_(std::move(sink)),
        granules_(fill.device.begin, layout.granule(), [this](uint64_t at, Bytes bytes) { return sink_(at, bytes); }),
        rows_(index_.rows(), fill.device, granules_),
        stored_at_(fill.stored.begin) {
    const ByteRange plain = plain_range(index_.rows(), fill.device);
    next_ = index_.chunk_at(plain.begin);
    end_ = index_.chunk_at(plain.end - 1) + 1;
    HYDRANT_CHECK(index_.chunks()[next_].stored_offset == fill.stored.begin,
                  "decoder() of a fill that plan() did not make");
  }

  Result<> feed(Bytes stored) override {
    if (stored.size() > fill_.stored.end - stored_at_)
      return fail(Code::kCorrupt, where() + ": more stored bytes than asked for");
    while (!stored.empty()) {
      if (!member_) {
        if (next_ == end_) break;
        enter();
      }
      const Bytes part = stored.first(std::min<uint64_t>(stored.size(), member_->stored.end - stored_at_));
      stored = stored.subspan(part.size());
      stored_at_ += part.size();
      auto taker = [this](Bytes plain) { return take(plain); };
      HYDRANT_TRY_VOID(told(frame_ ? frame_->feed(part, taker) : gzip_->feed(part, taker)));
      if (stored_at_ == member_->stored.end) HYDRANT_TRY_VOID(leave());
    }
    stored_at_ += stored.size();
    return {};
  }

  Result<> finish() override {
    if (stored_at_ != fill_.stored.end)
      return fail(Code::kCorrupt,
                  where() + ": " + std::to_string(fill_.stored.end - stored_at_) + " stored bytes are missing");
    HYDRANT_CHECK(next_ == end_, "a member ended before its last chunk: leave() sees to that");
    return granules_.finish(fill_.device.end);
  }

 private:
  std::string where() const {
    return "layer " + index_.ident().digest.text() + " device bytes " + std::to_string(fill_.device.begin);
  }
  Result<> told(Result<> done) const {
    if (!done && done.error().code == Code::kCorrupt) return fail(std::move(done).error().in(where()));
    return done;
  }

  // The next chunk's member, as far as chunks of it are wanted.
  void enter() {
    member_ = member_of(index_, next_);
    member_->end = std::min(member_->end, end_);
    const Chunk& last = index_.chunks()[member_->end - 1];
    Span span;
    span.stored_end = member_->stored.end - member_->stored.begin;
    span.plain_end = last.inner_offset + last.length;
    plain_at_ = 0;
    if (index_.ident().compression == Compression::kZstd) {
      frame_.emplace(span);
    } else {
      gzip_.emplace(span, Bytes{});
    }
  }

  Result<> leave() {
    HYDRANT_TRY_VOID(told(frame_ ? frame_->finish() : gzip_->finish()));
    frame_.reset();
    gzip_.reset();
    member_.reset();
    return {};
  }

  // Plain bytes of the member. They end with the last chunk wanted of it.
  Result<> take(Bytes plain) {
    while (!plain.empty()) {
      const Chunk& chunk = index_.chunks()[next_];
      const uint64_t begin = chunk.inner_offset + chunk_.size();
      const uint64_t skipped = std::min<uint64_t>(begin - std::min(begin, plain_at_), plain.size());
      const Bytes data =
          plain.subspan(skipped, std::min<uint64_t>(plain.size() - skipped, chunk.length - chunk_.size()));
      plain = plain.subspan(skipped + data.size());
      plain_at_ += skipped + data.size();
      if (data.size() == chunk.length) {  // whole where it stands: no copy
        HYDRANT_TRY_VOID(prove(data));
        continue;
      }
      if (chunk_.empty()) chunk_.reserve(chunk.length);
      append(chunk_, data);
      if (chunk_.size() < chunk.length) continue;
      HYDRANT_TRY_VOID(prove(chunk_));
      chunk_.clear();
    }
    return {};
  }

  Result<> prove(Bytes data) {
    const uint64_t begin = index_.chunk_begin(next_);
    if (sha256(data) != index_.chunks()[next_].digest)
      return fail(Code::kCorrupt, "layer " + index_.ident().digest.text() + ": the chunk at stored byte " +
                                      std::to_string(member_->stored.begin) + " does not match its digest");
    ++next_;
    return rows_.take(begin, data);
  }

  const LayerIndex& index_;  // the layout's
  const Fill fill_;
  const DeviceSink sink_;
  GranuleAssembler granules_;
  RowWalk rows_;
  uint64_t stored_at_;
  size_t next_ = 0, end_ = 0;  // chunks still wanted
  std::optional<Member> member_;
  uint64_t plain_at_ = 0;  // in the member
  Buffer chunk_;           // the part of the next one that has come
  // Of the member: gzip or zstd.
  std::optional<SpanDecoder> gzip_;
  std::optional<ZstdSpanDecoder> frame_;
};

std::unique_ptr<Layout::Decoder> ChunkLayout::decoder(const Fill& fill, DeviceSink sink) const {
  check_planned(fill);
  return std::make_unique<Decoding>(*this, fill, std::move(sink));
}

}  // namespace hydrant::image
