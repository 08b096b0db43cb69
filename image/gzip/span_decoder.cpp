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

constexpr size_t kPieceSize = 256 << 10;
constexpr size_t kMaxStep = 1 << 30;  // both libraries count in 32 bits
constexpr size_t kTrailerSize = 8;

tl::unexpected<Error> corrupt(std::string what) { return fail(Code::kCorrupt, "gzip span: " + std::move(what)); }

}  // namespace

// A raw deflate decoder: `start` once, `step` until it says end, `restart` for the next member.
class SpanDecoder::Deflate {
 public:
  struct Step {
    size_t made = 0;
    bool end = false;  // the deflate stream is complete; `in` starts behind it
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
    return Step{out.size() - zlib_.avail_out, status == Z_STREAM_END};
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
    // At the end whole bytes may still stand in the bit buffer: they belong to the trailer.
    auto left = size_t(state_.avail_in) + (in.size() - std::min(in.size(), kMaxStep));
    if (end) left += size_t(state_.read_in_length) / 8;
    in = in.last(std::min(left, in.size()));
    return Step{out.size() - state_.avail_out, end};
  }

 private:
  inflate_state state_;
};

SpanDecoder::SpanDecoder(const Span& span, Bytes stored, Bytes window, Engine engine)
    : left_(span.plain_end > span.start.plain_offset ? span.plain_end - span.start.plain_offset : 0),
      rest_(stored),
      in_header_(span.start.member_start),
      piece_(std::min<uint64_t>(left_, kPieceSize)) {
  if (engine == Engine::kAuto) engine = isal_works() ? Engine::kIsal : Engine::kZlib;
  if (engine == Engine::kIsal) {
    deflate_ = std::make_unique<IsalDeflate>();
  } else {
    deflate_ = std::make_unique<ZlibDeflate>();
  }
  if (in_header_) return;
  const uint8_t bits = span.start.bits;
  std::byte before{};
  bool fits = bits < 8 && window.size() <= kWindowSize && (bits == 0 || !rest_.empty());
  if (fits && bits) {
    before = rest_[0];
    rest_ = rest_.subspan(1);
  }
  if (!fits || !deflate_->start(bits, before, window)) rest_ = {};  // next() then finds the span ending early
}

SpanDecoder::~SpanDecoder() = default;

Result<> SpanDecoder::enter_member() {
  MemberHeader header;
  HYDRANT_TRY(bool complete, header.feed(rest_));
  if (!complete) return corrupt("stored bytes end in a member's header");
  in_header_ = false;
  return {};
}

Result<Bytes> SpanDecoder::next() {
  while (left_ > 0) {
    if (in_header_) HYDRANT_TRY_VOID(enter_member());
    HYDRANT_TRY(auto step, deflate_->step(rest_, MutableBytes(piece_).first(std::min<uint64_t>(left_, piece_.size()))));
    left_ -= step.made;
    if (step.end && left_ > 0) {
      if (rest_.size() < kTrailerSize) {
        rest_ = {};
      } else {
        rest_ = rest_.subspan(kTrailerSize);
      }
      deflate_->restart();
      in_header_ = true;
    }
    if (step.made > 0) return Bytes(piece_).first(step.made);
    if (!step.end) return corrupt("stored bytes end " + std::to_string(left_) + " bytes early");
  }
  return Bytes{};
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
    SpanDecoder decoder(span, Bytes(stored).subspan(span.stored().begin), checkpoint.window,
                        SpanDecoder::Engine::kIsal);
    for (uint64_t at = checkpoint.at.plain_offset; at < span.plain_end;) {
      auto piece = decoder.next();
      if (!piece || piece->empty() || !std::equal(piece->begin(), piece->end(), plain.begin() + ptrdiff_t(at)))
        return false;
      at += piece->size();
    }
  }
  return seen == 0xff;
}

}  // namespace

bool SpanDecoder::isal_works() {
  static const bool works = resume_everywhere();
  return works;
}

}  // namespace hydrant::image
