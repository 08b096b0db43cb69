#include "image/zstd/zstd_stream.h"

#include <algorithm>
#include <optional>

#include "base/check.h"
#include "image/zstd/zstd_context.h"

namespace hydrant::image {

// The newest checkpoint is held back in `pending_` until a plain byte follows it, so plain offsets ascend strictly.
class ZstdStream::Stream {
 public:
  Stream(ZstdStreamOptions options, PlainSink on_plain, CheckpointSink on_checkpoint)
      : options_(options), on_plain_(std::move(on_plain)), on_checkpoint_(std::move(on_checkpoint)) {
    HYDRANT_CHECK(options_.piece > 0, "ZstdStreamOptions::piece");
  }

  Result<> feed(Bytes stored) {
    if (error_) return fail(*error_);
    auto done = consume(stored);
    if (!done) error_ = done.error();
    return done;
  }

  Result<ZstdSummary> finish() {
    if (error_) return fail(*error_);
    if (summary_.stored_size == 0 || !between_frames_)
      return fail(Code::kCorrupt,
                  "zstd: the stream ends inside a frame, after " + std::to_string(summary_.stored_size) + " bytes");
    if (filled_ > 0) HYDRANT_TRY_VOID(hand_out());
    return summary_;
  }

 private:
  Result<> consume(Bytes stored) {
    // A full piece may leave plain bytes inside zstd, which come out without new input.
    for (bool more = false; !stored.empty() || more;) {
      if (between_frames_) begin_frame();
      ZSTD_inBuffer in{stored.data(), stored.size(), 0};
      ZSTD_outBuffer out{piece_.data() + filled_, piece_.size() - filled_, 0};
      const size_t left = ZSTD_decompressStream(context_.get(), &out, &in);
      summary_.stored_size += in.pos;
      if (ZSTD_isError(left)) return fail(zstd_error(left, summary_.stored_size));
      stored = stored.subspan(in.pos);
      filled_ += out.pos;
      summary_.plain_size += out.pos;
      if (out.pos > 0 && pending_) {
        last_ = *pending_;
        pending_.reset();
        HYDRANT_TRY_VOID(on_checkpoint_(last_));
      }
      if (left == 0) {
        between_frames_ = true;
        if (summary_.plain_size > frame_plain_) summary_.stored_end = summary_.stored_size;
      }
      more = filled_ == piece_.size() && !between_frames_;
      if (filled_ == piece_.size()) HYDRANT_TRY_VOID(hand_out());
    }
    return {};
  }

  // Frames of a few bytes each must not make an index larger than the blob.
  void begin_frame() {
    between_frames_ = false;
    frame_plain_ = summary_.plain_size;
    const Checkpoint here{.stored_offset = summary_.stored_size, .plain_offset = summary_.plain_size};
    if (here == Checkpoint{} || (pending_ && *pending_ != Checkpoint{})) {
      pending_ = here;  // a frame without plain bytes is no place to enter
    } else if (!pending_ && (here.plain_offset - last_.plain_offset >= options_.span / 8 ||
                             here.stored_offset - last_.stored_offset >= 2 * options_.span)) {
      pending_ = here;
    }
  }

  Result<> hand_out() {
    piece_.resize(filled_);
    filled_ = 0;
    return on_plain_(std::exchange(piece_, Buffer(options_.piece)));
  }

  const ZstdStreamOptions options_;
  const PlainSink on_plain_;
  const CheckpointSink on_checkpoint_;
  const ZstdContext context_ = make_zstd_context();
  std::optional<Error> error_;
  ZstdSummary summary_;
  bool between_frames_ = true;
  uint64_t frame_plain_ = 0;  // where this frame's plain bytes start

  Buffer piece_ = Buffer(options_.piece);
  size_t filled_ = 0;

  std::optional<Checkpoint> pending_;
  Checkpoint last_;  // the newest one reported
};

ZstdStream::ZstdStream(ZstdStreamOptions options, PlainSink on_plain, CheckpointSink on_checkpoint)
    : stream_(std::make_unique<Stream>(options, std::move(on_plain), std::move(on_checkpoint))) {}
ZstdStream::~ZstdStream() = default;
Result<> ZstdStream::feed(Bytes stored) { return stream_->feed(stored); }
Result<ZstdSummary> ZstdStream::finish() { return stream_->finish(); }

}  // namespace hydrant::image
