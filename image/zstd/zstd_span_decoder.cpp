#include "image/zstd/zstd_span_decoder.h"

#include <algorithm>
#include <string>

namespace hydrant::image {
namespace {

constexpr size_t kPiece = 256 << 10;

}  // namespace

ZstdSpanDecoder::ZstdSpanDecoder(const Span& span)
    : left_(span.plain().size()), piece_(std::min<uint64_t>(kPiece, left_)) {}

Result<> ZstdSpanDecoder::feed(Bytes stored, const Sink& sink) {
  // A full piece may leave plain bytes inside zstd, which come out without new input.
  for (bool more = false; left_ > 0 && (!stored.empty() || more);) {
    ZSTD_inBuffer in{stored.data(), stored.size(), 0};
    ZSTD_outBuffer out{piece_.data(), std::min<uint64_t>(piece_.size(), left_), 0};
    const size_t code = ZSTD_decompressStream(context_.get(), &out, &in);
    taken_ += in.pos;
    if (ZSTD_isError(code)) {
      Error error = zstd_error(code, taken_);
      // The stream could be read when its spans were found.
      if (error.code == Code::kUnsupported) error.code = Code::kCorrupt;
      return fail(std::move(error));
    }
    stored = stored.subspan(in.pos);
    left_ -= out.pos;
    more = out.pos == out.size && code != 0;
    if (out.pos > 0) HYDRANT_TRY_VOID(sink(Bytes(piece_).first(out.pos)));
  }
  return {};
}

Result<> ZstdSpanDecoder::finish() const {
  if (left_ > 0)
    return fail(Code::kCorrupt, "zstd: a span's stored bytes end " + std::to_string(left_) + " plain bytes early");
  return {};
}

}  // namespace hydrant::image
