// Both engines against lying spans: no read past the bytes, no byte past the span, and where both succeed, the same.
#include <cstdlib>
#include <optional>

#include "image/gzip/span_decoder.h"

using namespace hydrant;
using namespace hydrant::image;

namespace {

std::optional<Buffer> decode(const Span& span, Bytes stored, Bytes window, SpanDecoder::Engine engine) {
  SpanDecoder decoder(span, stored, window, engine);
  Buffer out;
  while (true) {
    auto piece = decoder.next();
    if (!piece) return std::nullopt;
    if (piece->empty()) return out;
    append(out, *piece);
    if (out.size() > span.plain().size()) std::abort();
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  Cursor in(std::as_bytes(std::span(data, size)));
  Span span;
  const auto flags = in.take<uint8_t>();
  span.start.member_start = flags & 8;
  span.start.bits = flags & 7;
  span.start.stored_offset = 100;
  span.plain_end = in.take<uint32_t>() % (2 << 20);
  const Bytes window = in.take_bytes(in.take<uint16_t>() % (kWindowSize + 100));
  if (!in.ok()) return 0;
  const auto isal = decode(span, in.rest(), window, SpanDecoder::Engine::kIsal);
  const auto zlib = decode(span, in.rest(), window, SpanDecoder::Engine::kZlib);
  if (isal && zlib && *isal != *zlib) std::abort();
  return 0;
}
