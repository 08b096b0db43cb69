#include "image/gzip/window_trim.h"

#include <algorithm>

#include "image/gzip/span_decoder.h"

namespace hydrant::image {
namespace {

// The probe's plain bytes as this window makes them; empty when it cannot be decoded.
Buffer decode_probe(const CheckpointData& checkpoint, Bytes window) {
  Span span{checkpoint.at, checkpoint.at.stored_offset + checkpoint.probe_stored.size(),
            checkpoint.at.plain_offset + checkpoint.probe_plain.size()};
  SpanDecoder decoder(span, window);
  Buffer out;
  auto keep = [&](Bytes piece) { return append(out, piece), Result<>(); };
  return decoder.feed(checkpoint.probe_stored, keep) && decoder.finish() ? out : Buffer();
}

}  // namespace

// Two windows that spell each byte's own position, its low and its high half, are decoded in place of the true one. A
// plain byte that comes from the window then shows where from; one that does not is the same in both. The positions
// whose halves are equal (128 of them) cannot be told from literals and are kept.
Buffer trim_window(const CheckpointData& checkpoint) {
  const Buffer& window = checkpoint.window;
  if (window.empty() || checkpoint.probe_plain.empty()) return window;

  Buffer low(window.size()), high(window.size());
  for (size_t i = 0; i < window.size(); ++i) {
    low[i] = std::byte(i);
    high[i] = std::byte(i >> 8);
  }
  const Buffer from_low = decode_probe(checkpoint, low), from_high = decode_probe(checkpoint, high);
  if (from_low.size() != checkpoint.probe_plain.size() || from_high.size() != from_low.size()) return window;

  Buffer trimmed(window.size());
  for (size_t i = 0; i < window.size(); i += 257) trimmed[i] = window[i];
  for (size_t i = 0; i < from_low.size(); ++i) {
    if (from_low[i] == from_high[i]) continue;
    const size_t position = size_t(from_low[i]) | size_t(from_high[i]) << 8;
    if (position >= window.size()) return window;
    trimmed[position] = window[position];
  }
  return decode_probe(checkpoint, trimmed) == checkpoint.probe_plain ? trimmed : window;
}

}  // namespace hydrant::image
