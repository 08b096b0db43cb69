#include "image/zstd/zstd_stream.h"

#include <gtest/gtest.h>

#include "image/gzip/gzip_fixture.h"
#include "image/zstd/zstd_fixture.h"
#include "image/zstd/zstd_span_decoder.h"

namespace hydrant::image {
namespace {

using namespace fixture;

struct Got {
  Buffer plain;
  std::vector<Checkpoint> checkpoints;
  ZstdSummary summary;
};

Result<Got> read(Bytes stored, size_t step, uint64_t span = 64 << 10) {
  Got got;
  ZstdStream stream(
      {.span = span, .piece = 100'000}, [&](Buffer&& plain) { return append(got.plain, plain), Result<>(); },
      [&](const Checkpoint& at) { return got.checkpoints.push_back(at), Result<>(); });
  for (size_t at = 0; at < stored.size(); at += step)
    HYDRANT_TRY_VOID(stream.feed(stored.subspan(at, std::min(step, stored.size() - at))));
  HYDRANT_TRY(got.summary, stream.finish());
  return got;
}

Buffer both(Buffer first, Bytes second) {
  append(first, second);
  return first;
}

Span span_of(const Got& got, size_t i) {
  const bool last = i + 1 == got.checkpoints.size();
  return {got.checkpoints[i], last ? got.summary.stored_end : got.checkpoints[i + 1].stored_offset,
          last ? got.summary.plain_size : got.checkpoints[i + 1].plain_offset};
}

Result<Buffer> decode(const Span& span, Bytes stored) {
  ZstdSpanDecoder decoder(span);
  Buffer plain;
  for (size_t at = 0; at < stored.size(); at += 10'000)
    HYDRANT_TRY_VOID(decoder.feed(stored.subspan(at, std::min<size_t>(10'000, stored.size() - at)),
                                  [&](Bytes piece) { return append(plain, piece), Result<>(); }));
  HYDRANT_TRY_VOID(decoder.finish());
  return plain;
}

TEST(ZstdStream, YieldsWhatAnyLevelOfAnyTextureHoldsAndEverySpanAlone) {
  for (int level : {1, 7})
    for (const Buffer& plain : {text(150'000), noise(110'000), mixture(400'000), Buffer(1'000'000), Buffer(1)})
      for (size_t frame : {size_t(0), size_t(7'000), size_t(100'000)}) {
        const Buffer stored = zstd(plain, frame, level);
        for (size_t step : {size_t(1), size_t(37), stored.size()}) {
          if (stored.size() / step > 10'000) continue;
          auto got = read(stored, step);
          ASSERT_TRUE(got) << got.error().what;
          ASSERT_TRUE(got->plain == plain);
          EXPECT_EQ(got->summary.stored_end, stored.size());
          if (step == 1) continue;
          EXPECT_EQ(got->checkpoints[0], Checkpoint{});
          for (size_t i = 0; i < got->checkpoints.size(); ++i) {
            const Span span = span_of(*got, i);
            auto part = decode(span, Bytes(stored).subspan(span.stored().begin, span.stored().size()));
            ASSERT_TRUE(part) << part.error().what;
            EXPECT_TRUE(std::equal(part->begin(), part->end(), plain.begin() + ptrdiff_t(span.plain().begin)));
            EXPECT_EQ(part->size(), span.plain().size());
          }
        }
      }
}

TEST(ZstdStream, StepsOverSkippableAndEmptyFrames) {
  const Buffer plain = text(400'000), table = noise(50'000);
  Buffer stored = skippable(table, 5);
  for (size_t at = 0; at < plain.size(); at += 50'000) {
    append(stored, zstd(Bytes(plain).subspan(at, 50'000)));
    append(stored, zstd({}));
    append(stored, skippable({}, 15));
  }
  const size_t end = stored.size();
  append(stored, skippable(table, 14));
  auto got = read(stored, 1000);
  ASSERT_TRUE(got) << got.error().what;
  EXPECT_TRUE(got->plain == plain);
  EXPECT_EQ(got->checkpoints.size(), 8u);
  EXPECT_LT(got->summary.stored_end, end);
  EXPECT_EQ(got->summary.stored_size, stored.size());
}

TEST(ZstdStream, TinyFramesDoNotMakeMoreIndexThanBlob) {
  const Buffer plain = text(500'000);
  auto got = read(zstd(plain, 100), 10'000, 256 << 10);
  ASSERT_TRUE(got);
  EXPECT_LE(got->checkpoints.size(), 500'000u / (32 << 10) + 1);
}

TEST(ZstdStream, DamageAndTruncationAreCorrupt) {
  const Buffer plain = text(100'000), stored = zstd(plain, 30'000);
  std::mt19937 random(1);
  for (int round = 0; round < 100; ++round) {
    Buffer bad = stored;
    bad[random() % bad.size()] ^= std::byte(1 << random() % 8);
    auto got = read(bad, 5000);
    EXPECT_TRUE(!got || got->plain == plain) << "a bit that means nothing";
  }
  for (size_t size : {size_t(0), size_t(3), size_t(5), stored.size() / 2, stored.size() - 1}) {
    auto got = read(Bytes(stored).first(size), 1000);
    ASSERT_FALSE(got) << size;
    EXPECT_EQ(got.error().code, Code::kCorrupt);
  }
  auto got = read(both(stored, Buffer(512)), 1000);
  ASSERT_FALSE(got) << "zeros behind the last frame are no frame";
  EXPECT_EQ(got.error().code, Code::kCorrupt);
}

TEST(ZstdStream, AWindowBeyondTheLimitIsUnsupported) {
  Buffer frame;
  append_le<uint32_t>(frame, 0xfd2fb528);
  frame.push_back(std::byte{0});               // no content size, no checksum
  frame.push_back(std::byte{(31 - 10) << 3});  // window of 2 GiB
  frame.resize(20);
  auto got = read(frame, 100);
  ASSERT_FALSE(got);
  EXPECT_EQ(got.error().code, Code::kUnsupported);
}

TEST(ZstdSpanDecoder, LyingSpansAreCorrupt) {
  const Buffer plain = text(300'000), stored = zstd(plain, 100'000);
  EXPECT_EQ(decode({{}, stored.size(), plain.size() + 1}, stored).error().code, Code::kCorrupt);
  EXPECT_EQ(decode({{}, 100, plain.size()}, Bytes(stored).first(100)).error().code, Code::kCorrupt);
  EXPECT_EQ(decode({{}, stored.size() - 1, plain.size()}, Bytes(stored).subspan(1)).error().code, Code::kCorrupt);
  auto part = decode({{}, stored.size(), 1000}, stored);
  ASSERT_TRUE(part);
  EXPECT_EQ(part->size(), 1000u);
}

}  // namespace
}  // namespace hydrant::image
