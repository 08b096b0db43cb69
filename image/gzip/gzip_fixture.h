// For tests: plain data of different textures, and gzip streams as different writers make them.
#pragma once

#include <zlib.h>

#include <algorithm>
#include <random>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "image/gzip/inflater.h"

namespace hydrant::image::fixture {

// Text-like: words repeat at all distances.
inline Buffer text(size_t size, uint32_t seed = 1) {
  std::mt19937 random(seed);
  std::vector<std::string> words(700);
  for (auto& word : words)
    for (size_t i = 2 + random() % 9; i > 0; --i) word.push_back(char('a' + random() % 26));
  Buffer out;
  while (out.size() < size) {
    append(out, as_bytes(words[std::min(random() % words.size(), random() % words.size())]));
    out.push_back(std::byte(random() % 12 ? ' ' : '\n'));
  }
  out.resize(size);
  return out;
}

inline Buffer noise(size_t size, uint32_t seed = 1) {
  std::mt19937 random(seed);
  Buffer out(size);
  for (auto& byte : out) byte = std::byte(random());
  return out;
}

// Stretches of text, noise and zeros.
inline Buffer mixture(size_t size, uint32_t seed = 1) {
  std::mt19937 random(seed);
  Buffer out;
  while (out.size() < size) {
    const size_t stretch = 1 + random() % (300 << 10);
    switch (random() % 3) {
      case 0: append(out, text(stretch, random())); break;
      case 1: append(out, noise(stretch / 4, random())); break;
      default: out.resize(out.size() + stretch);
    }
  }
  out.resize(size);
  return out;
}

// One member. `flush` > 0 ends a deflate block every so many plain bytes, at whatever bit it falls on.
inline Buffer gzip(Bytes plain, int level = 6, size_t flush = 0, int mode = Z_BLOCK) {
  z_stream zlib{};
  deflateInit2(&zlib, level, Z_DEFLATED, MAX_WBITS + 16, 8, Z_DEFAULT_STRATEGY);
  Buffer out(compressBound(plain.size()) + 1024 + (flush ? plain.size() / flush * 16 : 0));
  zlib.next_out = reinterpret_cast<Bytef*>(out.data());
  zlib.avail_out = uInt(out.size());
  size_t at = 0;
  do {
    const size_t size = flush ? std::min(flush, plain.size() - at) : plain.size();
    zlib.next_in = reinterpret_cast<Bytef*>(const_cast<std::byte*>(plain.data() + at));
    zlib.avail_in = uInt(size);
    at += size;
    deflate(&zlib, at == plain.size() ? Z_FINISH : mode);
  } while (at < plain.size());
  out.resize(zlib.total_out);
  deflateEnd(&zlib);
  return out;
}

inline Buffer joined(const std::vector<Buffer>& parts) {
  Buffer out;
  for (const auto& part : parts) append(out, part);
  return out;
}

struct Inflated {
  Buffer plain;
  std::vector<CheckpointData> checkpoints;
  InflaterSummary summary;

  Span span(size_t i) const {
    const bool last = i + 1 == checkpoints.size();
    return {checkpoints[i].at, last ? summary.stored_end : checkpoints[i + 1].at.stored_offset,
            last ? summary.plain_size : checkpoints[i + 1].at.plain_offset};
  }
};

// Fed in steps of `step` bytes.
inline Result<Inflated> inflate(Bytes stored, uint64_t span, size_t step = 100'000) {
  Inflated out;
  Inflater inflater(
      {.span = span, .piece = 64 << 10}, [&](Buffer&& plain) { return append(out.plain, plain), Result<>(); },
      [&](CheckpointData&& at) { return out.checkpoints.push_back(std::move(at)), Result<>(); });
  for (size_t at = 0; at < stored.size(); at += step)
    HYDRANT_TRY_VOID(inflater.feed(stored.subspan(at, std::min(step, stored.size() - at))));
  HYDRANT_TRY(out.summary, inflater.finish());
  return out;
}

}  // namespace hydrant::image::fixture
