#include "image/gzip/span_decoder.h"

#include <isa-l/igzip_lib.h>
#include <zlib.h>

#include <algorithm>
#include <vector>

#include "base/check.h"
#include "image/gzip/inflater.h"
#include "image/gzip/member_header.h"

namespace hydrant::image {
namespace {

constexpr size_t kPieceSize = 512 << 10;  // in the second-level cache when it is hashed
constexpr size_t kMaxStep = 1 << 30;      // both libraries count in 32 bits
constexpr size_t kTrailerSize = 8;

tl::unexpected<Error> corrupt(std::string what) { return fail(Code::kCorrupt, "gzip span: " + std::move(what)); }

}  // namespace

// A raw deflate decoder: `start` once, `step` until it says end, `restart` for the next member.
class SpanDecoder::Deflate {
 public:
  struct Step {
    size_t made = 0;
    bool end = false;      // the deflate stream is complete; `in` starts behind it
    size_t swallowed = 0;  // bytes behind the end that were taken in before it was seen: 0..8
  };
  virtual ~Deflate() = default;
  virtual Result<> start(uint8_t bits, std::byte before, Bytes window) = 0;
  virtual void restart() = 0;
  virtual Result<Step> step(Bytes& in, MutableBytes out) = 0;
};

class SpanDecoder::ZlibDeflate final : public Deflate {
 public:
  ZlibDeflate() { HYDRANT_CHECK(inflateInit2(&zlib_, -MAX_WBITS) == Z_OK, "zlib has no memory for its state"); }
  ~ZlibDeflate() override { inflateEnd(&zlib_); }

  Result<> start(uint8_t bits, std::byte before, Bytes window) override {
    if (bits && inflatePrime(&zlib_, bits, int(before) >> (8 - bits)) != Z_OK) return corrupt("cannot prime bits");
    if (!window.empty() &&
        inflateSetDictionary(&zlib_, reinterpret_cast<const Bytef*>(window.data()), uInt(window.size())) != Z_OK)
      return corrupt("cannot set the window");
    return {};
  }
  void restart() override { inflateReset(&zlib_); }

  Result<Step> step(Bytes& in, MutableBytes out) override {
    zlib_.next_in = reinterpret_cast<Bytef*>(const_cast<std::byte*>(in.data()));
    zlib_.avail_in = uInt(std::min(in.size(), kMaxStep));
    zlib_.next_out = reinterpret_cast<Bytef*>(out.data());
    zlib_.avail_out = uInt(out.size());
    const int status = ::inflate(&zlib_, Z_NO_FLUSH);
    if (status != Z_OK && status != Z_STREAM_END && status != Z_BUF_ERROR)
      return corrupt(zlib_.msg ? zlib_.msg : "bad deflate data");
    in = in.subspan(size_t(reinterpret_cast<const std::byte*>(zlib_.next_in) - in.data()));
    return Step{out.size() - zlib_.avail_out, status == Z_STREAM_END, 0};
  }

 private:
  z_stream zlib_{};
};

// ISA-L 2.30 has no call to prime bits: its bit buffer is set by hand, before the dictionary.
class SpanDecoder::IsalDeflate final : public Deflate {
 public:
  IsalDeflate() { isal_inflate_init(&state_); }

  Result<> start(uint8_t bits, std::byte before, Bytes window) override {
    state_.read_in = bits ? uint64_t(before) >> (8 - bits) : 0;
    state_.read_in_length = bits;
    if (!window.empty() &&
        isal_inflate_set_dict(&state_, reinterpret_cast<uint8_t*>(const_cast<std::byte*>(window.data())),
                              uint32_t(window.size())) != COMP_OK)
      return corrupt("cannot set the window");
    return {};
  }
  void restart() override { isal_inflate_reset(&state_); }

  Result<Step> step(Bytes& in, MutableBytes out) override {
    state_.next_in = reinterpret_cast<uint8_t*>(const_cast<std::byte*>(in.data()));
    state_.avail_in = uint32_t(std::min(in.size(), kMaxStep));
    state_.next_out = reinterpret_cast<uint8_t*>(out.data());
    state_.avail_out = uint32_t(out.size());
    const int status = isal_inflate(&state_);
    if (status < 0) return corrupt("bad deflate data (" + std::to_string(status) + ")");
    const bool end = state_.block_state == ISAL_BLOCK_FINISH;
    in = in.subspan(std::min(in.size(), kMaxStep) - state_.avail_in);
    // At the end whole bytes may still stand in the bit buffer: they belong to the trailer.
    return Step{out.size() - state_.avail_out, end, end ? size_t(state_.read_in_length) / 8 : 0};
  }

 private:
  inflate_state state_;
};

SpanDecoder::SpanDecoder(const Span& span, Bytes window, Engine engine)
    : left_(span.plain_end > span.start.plain_offset ? span.plain_end - span.start.plain_offset : 0),
      state_(span.start.member_start ? State::kHeader : State::kStart),
      bits_(span.start.bits),
      piece_size_(std::min<uint64_t>(left_, kPieceSize)),
      piece_(std::make_unique_for_overwrite<std::byte[]>(piece_size_)) {
  if (state_ == State::kStart) window_ = to_buffer(window);
  if (engine == Engine::kAuto) engine = isal_works() ? Engine::kIsal : Engine::kZlib;
  if (engine == Engine::kIsal) {
    deflate_ = std::make_unique<IsalDeflate>();
  } else {
    deflate_ = std::make_unique<ZlibDeflate>();
  }
}

SpanDecoder::~SpanDecoder() = default;

// In the middle of a member: the top bits of the first byte belong to the first block.
Result<> SpanDecoder::start(Bytes& stored) {
  if (bits_ > 7 || window_.size() > kWindowSize) return corrupt("a checkpoint that cannot be");
  std::byte before{};
  if (bits_ > 0) {
    before = stored[0];
    stored = stored.subspan(1);
  }
  HYDRANT_TRY_VOID(deflate_->start(bits_, before, window_));
  window_ = {};
  state_ = State::kBlocks;
  return {};
}

Result<> SpanDecoder::inflate(Bytes& stored, const Sink& sink) {
  const size_t before = stored.size();
  HYDRANT_TRY(auto step, deflate_->step(stored, {piece_.get(), std::min<uint64_t>(left_, piece_size_)}));
  left_ -= step.made;
  if (step.end) {
    deflate_->restart();
    trailer_left_ = kTrailerSize - std::min(step.swallowed, kTrailerSize);
    state_ = State::kTrailer;
  } else if (step.made == 0 && stored.size() == before && !stored.empty()) {
    return corrupt("the decoder does not move");
  }
  return step.made > 0 ? sink({piece_.get(), step.made}) : Result<>();
}

Result<> SpanDecoder::feed(Bytes stored, const Sink& sink) {
  while (left_ > 0) {
    switch (state_) {
      case State::kStart:
        if (stored.empty()) return {};
        HYDRANT_TRY_VOID(start(stored));
        break;
      case State::kHeader: {
        HYDRANT_TRY(bool complete, header_.feed(stored));
        if (!complete) return {};
        header_.reset();
        state_ = State::kBlocks;
        break;
      }
      case State::kBlocks: {
        const uint64_t before = left_;
        const bool more = !stored.empty();
        HYDRANT_TRY_VOID(inflate(stored, sink));
        // Without input there may still be output that the engine had no room for.
        if (!more && left_ == before && state_ == State::kBlocks) return {};
        break;
      }
      case State::kTrailer: {
        const size_t step = std::min(trailer_left_, stored.size());
        stored = stored.subspan(step);
        trailer_left_ -= step;
        if (trailer_left_ > 0) return {};
        state_ = State::kHeader;
        break;
      }
    }
  }
  return {};
}

Result<> SpanDecoder::finish() const {
  if (left_ > 0) return corrupt("stored bytes end " + std::to_string(left_) + " bytes early");
  return {};
}

namespace {

// A member whose blocks end at every bit position and reach back into the window.
bool resume_everywhere() {
  Buffer plain(160 << 10);
  uint32_t random = 1;
  for (size_t i = 0; i < plain.size(); ++i) {
    random = random * 1664525 + 1013904223;
    plain[i] = i >= 30000 && (random >> 28) != 0 ? plain[i - 29989] : std::byte(random >> 24);
  }
  z_stream zlib{};
  if (deflateInit2(&zlib, 6, Z_DEFLATED, MAX_WBITS + 16, 8, Z_DEFAULT_STRATEGY) != Z_OK) return false;
  Buffer stored(2 * plain.size());
  zlib.next_out = reinterpret_cast<Bytef*>(stored.data());
  zlib.avail_out = uInt(stored.size());
  constexpr size_t kBlock = 2500;
  for (size_t at = 0; at < plain.size(); at += kBlock) {
    const size_t size = std::min(kBlock, plain.size() - at);
    zlib.next_in = reinterpret_cast<Bytef*>(plain.data() + at);
    zlib.avail_in = uInt(size);
    deflate(&zlib, at + size == plain.size() ? Z_FINISH : Z_BLOCK);
  }
  stored.resize(zlib.total_out);
  deflateEnd(&zlib);

  std::vector<CheckpointData> checkpoints;
  Inflater inflater(
      {.span = 1}, [](Buffer&&) { return Result<>(); },
      [&](CheckpointData&& data) { return checkpoints.push_back(std::move(data)), Result<>(); });
  if (!inflater.feed(stored) || !inflater.finish()) return false;

  unsigned seen = 0;
  for (const auto& checkpoint : checkpoints) {
    seen |= 1u << checkpoint.at.bits;
    Span span{checkpoint.at, stored.size(), std::min(plain.size(), checkpoint.at.plain_offset + 2 * kWindowSize)};
    SpanDecoder decoder(span, checkpoint.window, SpanDecoder::Engine::kIsal);
    auto at = plain.begin() + ptrdiff_t(checkpoint.at.plain_offset);
    auto same = [&](Bytes piece) -> Result<> {
      if (!std::equal(piece.begin(), piece.end(), at)) return corrupt("wrong bytes");
      at += ptrdiff_t(piece.size());
      return {};
    };
    if (!decoder.feed(Bytes(stored).subspan(span.stored().begin), same) || !decoder.finish()) return false;
  }
  return seen == 0xff;
}

}  // namespace

bool SpanDecoder::isal_works() {
  static const bool works = resume_everywhere();
  return works;
}

}  // namespace hydrant::image
