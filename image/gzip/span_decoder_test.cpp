#include "image/gzip/span_decoder.h"

#include <gtest/gtest.h>
#include <sys/mman.h>

#include "base/byte_range.h"
#include "image/gzip/gzip_fixture.h"
#include "image/gzip/window_trim.h"

namespace hydrant::image {
namespace {

using namespace fixture;
using Engine = SpanDecoder::Engine;

// Bytes that end where a page without access begins: ISA-L is assembly, which no sanitizer watches.
class GuardedBytes {
 public:
  explicit GuardedBytes(Bytes bytes) : size_(round_up(bytes.size(), kPage) + kPage) {
    auto* base =
        static_cast<std::byte*>(mmap(nullptr, size_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    base_ = base;
    bytes_ = {base + size_ - kPage - bytes.size(), bytes.size()};
    std::copy(bytes.begin(), bytes.end(), base + size_ - kPage - bytes.size());
    mprotect(base + size_ - kPage, kPage, PROT_NONE);
  }
  ~GuardedBytes() { munmap(base_, size_); }
  GuardedBytes(const GuardedBytes&) = delete;
  GuardedBytes& operator=(const GuardedBytes&) = delete;
  Bytes get() const { return bytes_; }

 private:
  static constexpr size_t kPage = 4096;
  size_t size_;
  void* base_;
  Bytes bytes_;
};

// Fed in pieces of `step` bytes, each of which ends at a guard page.
Result<Buffer> decode(const Span& span, Bytes stored, Bytes window, Engine engine, size_t step = SIZE_MAX) {
  SpanDecoder decoder(span, window, engine);
  Buffer out;
  while (!stored.empty()) {
    GuardedBytes guarded(stored.first(std::min(stored.size(), step)));
    HYDRANT_TRY_VOID(decoder.feed(guarded.get(), [&](Bytes piece) { return append(out, piece), Result<>(); }));
    stored = stored.subspan(guarded.get().size());
  }
  HYDRANT_TRY_VOID(decoder.finish());
  return out;
}

void expect_every_span_resumes(const Buffer& stored, const Buffer& plain, uint64_t span_size) {
  auto whole = inflate(stored, span_size);
  ASSERT_TRUE(whole) << whole.error().what;
  ASSERT_TRUE(whole->plain == plain);
  for (size_t i = 0; i < whole->checkpoints.size(); ++i) {
    const Span span = whole->span(i);
    const Bytes part = Bytes(stored).subspan(span.stored().begin, span.stored().size());
    const Buffer trimmed = trim_window(whole->checkpoints[i]);
    ASSERT_EQ(trimmed.size(), whole->checkpoints[i].window.size());
    for (Engine engine : {Engine::kIsal, Engine::kZlib}) {
      for (const Buffer* window : {static_cast<const Buffer*>(&whole->checkpoints[i].window), &trimmed}) {
        auto got = decode(span, part, *window, engine);
        ASSERT_TRUE(got) << got.error().what << " span " << i << " of " << whole->checkpoints.size();
        ASSERT_TRUE(std::equal(got->begin(), got->end(), plain.begin() + ptrdiff_t(span.plain().begin),
                               plain.begin() + ptrdiff_t(span.plain().end)))
            << "span " << i << " bits " << int(span.start.bits);
      }
    }
  }
}

TEST(SpanDecoder, IsalPassesItsSelfTestHere) { EXPECT_TRUE(SpanDecoder::isal_works()); }

TEST(SpanDecoder, ResumesAtEveryCheckpointAndBitPosition) {
  const Buffer plain = mixture(3'000'000, 3);
  for (int level : {0, 1, 6, 9}) {
    const Buffer stored = gzip(plain, level, 7'001);
    expect_every_span_resumes(stored, plain, 20'000);
    auto whole = inflate(stored, 20'000);
    unsigned seen = 0;
    for (const auto& checkpoint : whole->checkpoints) seen |= 1u << checkpoint.at.bits;
    EXPECT_TRUE(level == 0 || seen == 0xff);
  }
}

TEST(SpanDecoder, ResumesInStreamsOfOneWriterPerCore) {
  const Buffer plain = mixture(2'000'000, 8);
  expect_every_span_resumes(gzip(plain, 6, 128 << 10, Z_SYNC_FLUSH), plain, 100'000);
  expect_every_span_resumes(gzip(plain, 6, 128 << 10, Z_FULL_FLUSH), plain, 100'000);
}

TEST(SpanDecoder, CrossesMembersInsideASpan) {
  std::vector<Buffer> members;
  Buffer plain;
  for (uint32_t i = 0; i < 60; ++i) {
    const Buffer part = i % 7 == 0 ? Buffer() : mixture(1 + i * 997, i);
    members.push_back(gzip(part, int(i % 10), i % 3 ? 5'000 : 0));
    append(plain, part);
  }
  expect_every_span_resumes(joined(members), plain, 64 << 10);
  expect_every_span_resumes(joined(members), plain, 1 << 10);
}

TEST(SpanDecoder, DecodesHugeRunsOfZeros) {
  const Buffer plain(20 << 20);
  expect_every_span_resumes(gzip(plain, 9), plain, 1 << 20);
}

TEST(SpanDecoder, ItDoesNotMatterHowTheStoredBytesAreCut) {
  const Buffer plain = text(60'000);
  std::vector<Buffer> members;
  for (size_t at = 0; at < plain.size(); at += 20'000)
    members.push_back(gzip(Bytes(plain).subspan(at, 20'000), 6, 3'000));
  const Buffer stored = joined(members);
  auto whole = inflate(stored, 8 << 10);
  ASSERT_TRUE(whole);
  for (size_t i = 0; i < whole->checkpoints.size(); i += 3) {
    Span span = whole->span(i);  // and all behind it: neighbours made one need no further checkpoint
    span.stored_end = stored.size();
    span.plain_end = plain.size();
    for (Engine engine : {Engine::kIsal, Engine::kZlib}) {
      for (size_t step : {1, 2, 7, 8, 9, 1000}) {
        auto got = decode(span, Bytes(stored).subspan(span.stored().begin), whole->checkpoints[i].window, engine, step);
        ASSERT_TRUE(got) << got.error().what;
        EXPECT_TRUE(std::equal(got->begin(), got->end(), plain.begin() + ptrdiff_t(span.plain().begin), plain.end()))
            << "span " << i << " in steps of " << step;
      }
    }
  }
}

TEST(SpanDecoder, CutStoredBytesAreCorrupt) {
  const Buffer plain = text(400'000);
  const Buffer stored = gzip(plain, 6, 9'000);
  auto whole = inflate(stored, 64 << 10);
  const Span span = whole->span(2);
  const Bytes part = Bytes(stored).subspan(span.stored().begin, span.stored().size());
  for (Engine engine : {Engine::kIsal, Engine::kZlib}) {
    for (size_t cut = 8; cut <= part.size(); cut += 61) {
      auto got = decode(span, part.first(part.size() - cut), whole->checkpoints[2].window, engine);
      ASSERT_FALSE(got) << cut;
      EXPECT_EQ(got.error().code, Code::kCorrupt);
    }
  }
}

TEST(SpanDecoder, NeverYieldsMoreThanTheSpan) {
  const Buffer plain = text(400'000);
  const Buffer stored = gzip(plain);
  for (Engine engine : {Engine::kIsal, Engine::kZlib}) {
    for (uint64_t end : {uint64_t(0), uint64_t(1), uint64_t(1000), uint64_t(300'000)}) {
      auto got = decode(Span{{}, stored.size(), end}, stored, {}, engine);
      ASSERT_TRUE(got);
      EXPECT_TRUE(std::equal(got->begin(), got->end(), plain.begin(), plain.begin() + ptrdiff_t(end)));
    }
    auto more = decode(Span{{}, stored.size(), plain.size() + 1}, stored, {}, engine);
    ASSERT_FALSE(more);
    EXPECT_EQ(more.error().code, Code::kCorrupt);
  }
}

TEST(SpanDecoder, ChangedBytesNeverCrashAndNeverMakeItLonger) {
  const Buffer plain = mixture(300'000, 4);
  const Buffer stored = gzip(plain, 6, 9'000);
  auto whole = inflate(stored, 64 << 10);
  std::mt19937 random(7);
  for (int round = 0; round < 600; ++round) {
    const size_t i = random() % whole->checkpoints.size();
    const Span span = whole->span(i);
    Buffer part = to_buffer(Bytes(stored).subspan(span.stored().begin, span.stored().size()));
    for (int flips = 1 + int(random() % 4); flips > 0; --flips)
      part[random() % part.size()] ^= std::byte(1 << random() % 8);
    auto got = decode(span, part, whole->checkpoints[i].window, round % 2 ? Engine::kIsal : Engine::kZlib);
    EXPECT_TRUE(!got || got->size() == span.plain().size());
  }
}

TEST(WindowTrim, KeepsOnlyWhatIsReferredTo) {
  const Buffer plain = text(1'000'000);
  auto whole = inflate(gzip(plain, 6, 50'000), 200'000);
  size_t kept = 0, all = 0;
  for (const auto& checkpoint : whole->checkpoints) {
    const Buffer trimmed = trim_window(checkpoint);
    for (size_t i = 0; i < trimmed.size(); ++i) {
      kept += trimmed[i] != std::byte{0};
      EXPECT_TRUE(trimmed[i] == std::byte{0} || trimmed[i] == checkpoint.window[i]);
    }
    all += trimmed.size();
  }
  EXPECT_LT(kept, all * 3 / 4);
  EXPECT_GT(kept, 0u);
}

}  // namespace
}  // namespace hydrant::image
