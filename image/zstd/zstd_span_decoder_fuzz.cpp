// Stored bytes and a span that need not fit them.
#include "image/zstd/zstd_span_decoder.h"

using namespace hydrant;
using namespace hydrant::image;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  Cursor in(std::as_bytes(std::span(data, size)));
  const uint64_t plain = in.take<uint32_t>() % (4 << 20);
  const size_t step = 1 + in.take<uint8_t>();
  if (!in.ok()) return 0;
  const Bytes stored = in.rest();
  ZstdSpanDecoder decoder({{}, stored.size(), plain});
  uint64_t got = 0;
  for (size_t at = 0; at < stored.size(); at += step)
    if (!decoder.feed(stored.subspan(at, std::min(step, stored.size() - at)),
                      [&](Bytes bytes) { return got += bytes.size(), Result<>(); }))
      return 0;
  if (got > plain || (decoder.finish() && got != plain)) __builtin_trap();
  return 0;
}
