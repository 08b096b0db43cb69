// Both engines against lying spans, one fed in pieces: no byte past the span, and where both succeed, the same.
#include <algorithm>
#include <cstdlib>
#include <optional>

#include "image/gzip/span_decoder.h"

using namespace hydrant;
using namespace hydrant::image;

namespace {

std::optional<Buffer> decode(const Span& span, Bytes stored, size_t step, Bytes window, SpanDecoder::Engine engine) {
  SpanDecoder decoder(span, window, engine);
  Buffer out;
  auto keep = [&](Bytes piece) -> Result<> {
    append(out, piece);
    if (out.size() > span.plain().size()) std::abort();
    return {};
  };
  while (!stored.empty()) {
    const Bytes part = stored.first(std::min<size_t>(stored.size(), step));
    if (!decoder.feed(part, keep)) return std::nullopt;
    stored = stored.subspan(part.size());
  }
  if (!decoder.finish()) return std::nullopt;
  return out;
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
  const size_t step = 1 + in.take<uint16_t>();
  const Bytes window = in.take_bytes(in.take<uint16_t>() % (kWindowSize + 100));
  if (!in.ok()) return 0;
  const auto isal = decode(span, in.rest(), step, window, SpanDecoder::Engine::kIsal);
  const auto zlib = decode(span, in.rest(), SIZE_MAX, window, SpanDecoder::Engine::kZlib);
  if (isal && zlib && *isal != *zlib) std::abort();
  return 0;
}
