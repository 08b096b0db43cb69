#include "image/gzip/inflater.h"

#include <isa-l/crc.h>
#include <zlib.h>

#include <algorithm>
#include <optional>

#include "base/check.h"
#include "image/gzip/member_header.h"

namespace hydrant::image {
namespace {

constexpr size_t kTrailerSize = 8;
// A window is referred to by the 32 KiB after it; a stream that hides them behind more stored bytes keeps its window
// whole.
constexpr size_t kMaxProbeStored = 128 << 10;

}  // namespace

// The decoder walks kHeader -> kDeflate -> kTrailer -> kBetween and from there to the next header or into the tail.
//
// The newest checkpoint is held back in `pending_` until its probe is complete. A checkpoint is reported only when at
// least one plain byte follows it, so plain offsets ascend strictly.
class Inflater::Stream {
 public:
  Stream(InflaterOptions options, PlainSink on_plain, CheckpointSink on_checkpoint)
      : options_(options), on_plain_(std::move(on_plain)), on_checkpoint_(std::move(on_checkpoint)) {
    HYDRANT_CHECK(options_.piece >= 2 * kWindowSize, "a piece must hold a window: InflaterOptions::piece");
    HYDRANT_CHECK(inflateInit2(&zlib_, -MAX_WBITS) == Z_OK, "zlib has no memory for its state");
    pending_.emplace();
  }
  ~Stream() { inflateEnd(&zlib_); }

  Result<> feed(Bytes stored) {
    if (error_) return fail(*error_);
    auto done = consume(stored);
    if (!done) error_ = done.error();
    return done;
  }

  Result<InflaterSummary> finish() {
    if (error_) return fail(*error_);
    if (summary_.members == 0 || (state_ != State::kBetween && state_ != State::kTail))
      return fail(Code::kCorrupt,
                  "gzip: the stream ends inside a member, after " + std::to_string(summary_.stored_size) + " bytes");
    if (plain_ > pending_at()) HYDRANT_TRY_VOID(report_pending());
    if (filled_ > 0) HYDRANT_TRY_VOID(hand_out());
    summary_.plain_size = plain_;
    return summary_;
  }

 private:
  enum class State { kHeader, kDeflate, kTrailer, kBetween, kTail };

  uint64_t pending_at() const { return pending_ ? pending_->at.plain_offset : last_.plain_offset; }

  Result<> consume(Bytes stored) {
    while (!stored.empty()) {
      const size_t before = stored.size();
      switch (state_) {
        case State::kHeader: {
          HYDRANT_TRY(bool complete, header_.feed(stored));
          if (complete) state_ = State::kDeflate;
          break;
        }
        case State::kDeflate: HYDRANT_TRY_VOID(inflate_some(stored)); continue;  // counts its own bytes
        case State::kTrailer: {
          const size_t size = std::min(stored.size(), kTrailerSize - trailer_have_);
          std::copy_n(stored.begin(), size, trailer_ + trailer_have_);
          stored = stored.subspan(size);
          if ((trailer_have_ += size) == kTrailerSize) HYDRANT_TRY_VOID(end_member(summary_.stored_size + size));
          break;
        }
        case State::kBetween:
          if (stored[0] == std::byte{0x1f}) {
            HYDRANT_TRY_VOID(begin_member());
          } else {
            state_ = State::kTail;
          }
          break;
        case State::kTail:
          if (std::any_of(stored.begin(), stored.end(), [](std::byte b) { return b != std::byte{0}; }))
            summary_.clean_tail = false;
          stored = {};
          break;
      }
      summary_.stored_size += before - stored.size();
    }
    return {};
  }

  // Up to the end of the input or of the member.
  Result<> inflate_some(Bytes& stored) {
    while (state_ == State::kDeflate) {
      if (filled_ == piece_.size()) HYDRANT_TRY_VOID(hand_out());
      size_t room = piece_.size() - filled_;
      if (probing_) room = std::min(room, kWindowSize - pending_->probe_plain.size());

      zlib_.next_in = reinterpret_cast<Bytef*>(const_cast<std::byte*>(stored.data()));
      zlib_.avail_in = static_cast<uInt>(std::min<size_t>(stored.size(), 1 << 30));
      zlib_.next_out = reinterpret_cast<Bytef*>(piece_.data() + filled_);
      zlib_.avail_out = static_cast<uInt>(room);
      const int status = ::inflate(&zlib_, Z_BLOCK);
      const auto took = size_t(reinterpret_cast<const std::byte*>(zlib_.next_in) - stored.data());
      const size_t made = room - zlib_.avail_out;
      account(stored.first(took), Bytes(piece_).subspan(filled_, made));
      stored = stored.subspan(took);

      if (status == Z_STREAM_END) {
        if (probing_) HYDRANT_TRY_VOID(end_probe(plain_ > pending_at()));
        state_ = State::kTrailer;
        trailer_have_ = 0;
        return {};
      }
      if (status != Z_OK && status != Z_BUF_ERROR)
        return fail(Code::kCorrupt, "gzip: " + std::string(zlib_.msg ? zlib_.msg : "bad deflate data") +
                                        " before stored byte " + std::to_string(summary_.stored_size));
      const bool block_end = (zlib_.data_type & 128) && !(zlib_.data_type & 64);
      HYDRANT_TRY_VOID(after_progress(block_end));
      if (stored.empty() && zlib_.avail_out > 0 && !(zlib_.data_type & 128)) return {};
    }
    return {};
  }

  void account(Bytes took, Bytes made) {
    if (probing_) {
      append(pending_->probe_stored, took);
      append(pending_->probe_plain, made);
    }
    if (!took.empty()) last_byte_ = took.back();
    crc_ = crc32_gzip_refl(crc_, reinterpret_cast<const unsigned char*>(made.data()), made.size());
    summary_.stored_size += took.size();
    plain_ += made.size();
    filled_ += made.size();
  }

  Result<> after_progress(bool block_end) {
    if (pending_ && pending_->at.member_start && plain_ > pending_at()) HYDRANT_TRY_VOID(report_pending());
    if (probing_) {
      if (pending_->probe_plain.size() == kWindowSize) {
        HYDRANT_TRY_VOID(end_probe(true));
      } else if (pending_->probe_stored.size() > kMaxProbeStored) {
        HYDRANT_TRY_VOID(end_probe(false));
      }
    }
    if (block_end && due(options_.span)) {
      if (pending_) HYDRANT_TRY_VOID(end_probe(false));
      pending_.emplace();
      pending_->at = {.stored_offset = summary_.stored_size,
                      .plain_offset = plain_,
                      .bits = uint8_t(zlib_.data_type & 7),
                      .member_start = false};
      pending_->window = window();
      if (pending_->at.bits) pending_->probe_stored.push_back(last_byte_);
      probing_ = true;
    }
    return {};
  }

  // Far enough from the newest checkpoint, in plain bytes or (empty blocks, tiny members) in stored ones.
  bool due(uint64_t distance) const {
    const Checkpoint& newest = pending_ ? pending_->at : last_;
    return plain_ > newest.plain_offset && (plain_ - newest.plain_offset >= distance ||
                                            summary_.stored_size - newest.stored_offset >= 2 * options_.span);
  }

  // The last plain bytes of this member, a window at most: of the piece being filled and the tail of the one before.
  Buffer window() const {
    const auto size = size_t(std::min<uint64_t>(kWindowSize, plain_ - member_plain_));
    const size_t here = std::min(size, filled_), there = size - here;
    Buffer out(tail_.end() - ptrdiff_t(there), tail_.end());
    append(out, Bytes(piece_).subspan(filled_ - here, here));
    return out;
  }

  Result<> hand_out() {
    tail_.assign(piece_.begin() + ptrdiff_t(filled_ - std::min<size_t>(filled_, kWindowSize)),
                 piece_.begin() + ptrdiff_t(filled_));
    piece_.resize(filled_);
    filled_ = 0;
    auto full = std::exchange(piece_, Buffer(options_.piece));
    return on_plain_(std::move(full));
  }

  // `usable`: the probe shows everything that the span can ask of its window. Without a plain byte after it the
  // checkpoint stays back.
  Result<> end_probe(bool usable) {
    probing_ = false;
    if (!usable) {
      pending_->probe_stored = {};
      pending_->probe_plain = {};
    }
    return plain_ > pending_at() ? report_pending() : Result<>();
  }

  Result<> report_pending() {
    if (!pending_) return {};
    probing_ = false;
    auto data = *std::exchange(pending_, std::nullopt);
    last_ = data.at;
    return on_checkpoint_(std::move(data));
  }

  Result<> end_member(uint64_t end) {
    if (load_le<uint32_t>(trailer_) != crc_)
      return fail(Code::kCorrupt, "gzip: a member's CRC32 does not match its data, at stored byte " +
                                      std::to_string(end - kTrailerSize));
    if (load_le<uint32_t>(trailer_ + 4) != uint32_t(plain_ - member_plain_))
      return fail(Code::kCorrupt, "gzip: a member's length does not match its data, at stored byte " +
                                      std::to_string(end - kTrailerSize + 4));
    summary_.stored_end = end;
    ++summary_.members;
    state_ = State::kBetween;
    return {};
  }

  Result<> begin_member() {
    // Members of a few bytes each must not make an index larger than the blob.
    if (due(options_.span / 8)) {
      HYDRANT_TRY_VOID(report_pending());
      pending_.emplace();
      pending_->at = {.stored_offset = summary_.stored_size, .plain_offset = plain_};
    }
    HYDRANT_CHECK(inflateReset(&zlib_) == Z_OK, "zlib state was overwritten");
    header_.reset();
    crc_ = 0;
    member_plain_ = plain_;
    state_ = State::kHeader;
    return {};
  }

  const InflaterOptions options_;
  const PlainSink on_plain_;
  const CheckpointSink on_checkpoint_;
  std::optional<Error> error_;

  State state_ = State::kHeader;
  z_stream zlib_{};
  MemberHeader header_;
  std::byte trailer_[kTrailerSize] = {};
  size_t trailer_have_ = 0;
  std::byte last_byte_{};
  uint32_t crc_ = 0;           // of this member's plain bytes
  uint64_t plain_ = 0;         // all plain bytes so far
  uint64_t member_plain_ = 0;  // where this member's plain bytes start
  InflaterSummary summary_;

  Buffer piece_ = Buffer(options_.piece);
  size_t filled_ = 0;
  Buffer tail_;

  std::optional<CheckpointData> pending_;
  bool probing_ = false;  // only while pending_ is no member's start
  Checkpoint last_;       // the newest one reported
};

Inflater::Inflater(InflaterOptions options, PlainSink on_plain, CheckpointSink on_checkpoint)
    : stream_(std::make_unique<Stream>(options, std::move(on_plain), std::move(on_checkpoint))) {}
Inflater::~Inflater() = default;
Result<> Inflater::feed(Bytes stored) { return stream_->feed(stored); }
Result<InflaterSummary> Inflater::finish() { return stream_->finish(); }

}  // namespace hydrant::image
