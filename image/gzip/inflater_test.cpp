#include "image/gzip/inflater.h"

#include <gtest/gtest.h>

#include "image/gzip/gzip_fixture.h"

namespace hydrant::image {
namespace {

using namespace fixture;

void expect_plain(const Buffer& stored, const Buffer& plain, uint64_t span = 64 << 10) {
  for (size_t step : {size_t(1), size_t(37), size_t(4096), stored.size() + 1}) {
    if (stored.size() / step > 100'000) continue;
    auto got = inflate(stored, span, step);
    ASSERT_TRUE(got) << got.error().what;
    EXPECT_TRUE(got->plain == plain) << "step " << step;
    EXPECT_EQ(got->summary.plain_size, plain.size());
    EXPECT_EQ(got->summary.stored_size, stored.size());
  }
}

TEST(Inflater, YieldsWhatAnyLevelOfAnyTextureHolds) {
  for (int level : {0, 1, 6, 9})
    for (const Buffer& plain :
         {text(300'000), noise(200'000), mixture(900'000), Buffer(3'000'000), Buffer(1), Buffer()})
      expect_plain(gzip(plain, level), plain);
}

TEST(Inflater, JoinsMembersEmptyOnesIncluded) {
  const Buffer a = text(100'000, 1), b = noise(70'000, 2), none;
  Buffer plain = a;
  append(plain, b);
  expect_plain(joined({gzip(none), gzip(a), gzip(none), gzip(none), gzip(b, 0), gzip(none)}), plain);
}

TEST(Inflater, TakesStreamsFlushedAsParallelWritersDo) {
  const Buffer plain = mixture(800'000, 5);
  for (int mode : {Z_BLOCK, Z_SYNC_FLUSH, Z_FULL_FLUSH, Z_PARTIAL_FLUSH})
    expect_plain(gzip(plain, 6, 9'000, mode), plain);
}

TEST(Inflater, CheckpointsAscendAndTheFirstIsTheStart) {
  const Buffer plain = text(2'000'000);
  auto got = inflate(gzip(plain, 6, 10'000), 64 << 10);
  ASSERT_TRUE(got);
  ASSERT_GT(got->checkpoints.size(), 20u);
  EXPECT_EQ(got->checkpoints[0].at, Checkpoint{});
  for (size_t i = 1; i < got->checkpoints.size(); ++i) {
    const auto &before = got->checkpoints[i - 1].at, &at = got->checkpoints[i].at;
    EXPECT_GE(at.plain_offset, before.plain_offset + (64 << 10));
    EXPECT_GT(at.stored_offset, before.stored_offset);
    EXPECT_EQ(got->checkpoints[i].window.size(), kWindowSize);
    EXPECT_TRUE(std::equal(got->checkpoints[i].window.begin(), got->checkpoints[i].window.end(),
                           plain.begin() + ptrdiff_t(at.plain_offset - kWindowSize)));
  }
}

TEST(Inflater, TinyMembersDoNotMakeMoreIndexThanBlob) {
  std::vector<Buffer> members(5000, gzip(text(100)));
  auto got = inflate(joined(members), 256 << 10);
  ASSERT_TRUE(got) << got.error().what;
  EXPECT_EQ(got->summary.members, 5000u);
  EXPECT_LT(got->checkpoints.size(), 32u);
}

TEST(Inflater, ReadsEveryOptionalHeaderField) {
  const Buffer plain = text(5000);
  Buffer member = gzip(plain);
  Buffer header(member.begin(), member.begin() + 10);
  header[3] = std::byte{1 | 2 | 4 | 8 | 16};
  append_le<uint16_t>(header, 5);
  append(header, as_bytes("extra"));
  append(header, as_bytes(std::string_view("name\0a comment\0", 15)));
  const auto crc = crc32(0, reinterpret_cast<const Bytef*>(header.data()), uInt(header.size()));
  append_le<uint16_t>(header, uint16_t(crc));
  Buffer stored = header;
  append(stored, Bytes(member).subspan(10));
  expect_plain(stored, plain);

  stored[header.size() - 1] ^= std::byte{1};
  auto got = inflate(stored, 64 << 10);
  ASSERT_FALSE(got);
  EXPECT_EQ(got.error().code, Code::kCorrupt);
}

TEST(Inflater, TellsPaddingFromGarbage) {
  const Buffer plain = text(5000);
  Buffer stored = gzip(plain);
  const size_t end = stored.size();
  stored.resize(end + 3000);
  auto got = inflate(stored, 64 << 10);
  ASSERT_TRUE(got);
  EXPECT_TRUE(got->summary.clean_tail);
  EXPECT_EQ(got->summary.stored_end, end);
  stored[end + 2000] = std::byte{7};
  got = inflate(stored, 64 << 10);
  ASSERT_TRUE(got);
  EXPECT_FALSE(got->summary.clean_tail);
}

TEST(Inflater, AnyCutIsCorrupt) {
  const Buffer stored = gzip(text(20'000));
  for (size_t size = 0; size < stored.size(); ++size) {
    auto got = inflate(Bytes(stored).first(size), 64 << 10);
    ASSERT_FALSE(got) << size;
    EXPECT_EQ(got.error().code, Code::kCorrupt);
  }
}

TEST(Inflater, AnyChangedByteOfDataOrTrailerIsCorrupt) {
  const Buffer stored = gzip(noise(3000), 0);
  for (size_t at = 11; at < stored.size(); ++at) {  // byte 10 has padding bits
    Buffer bad = stored;
    bad[at] ^= std::byte{0x10};
    EXPECT_FALSE(inflate(bad, 64 << 10)) << at;
  }
}

TEST(Inflater, RepeatsItsErrorAndTheReceivers) {
  Inflater inflater(
      {}, [](Buffer&&) -> Result<> { return fail(Code::kNoSpace, "full"); },
      [](CheckpointData&&) { return Result<>(); });
  const Buffer stored = gzip(noise(2 << 20), 1);
  for (int i = 0; i < 2; ++i) {
    auto done = inflater.feed(stored);
    ASSERT_FALSE(done);
    EXPECT_EQ(done.error().code, Code::kNoSpace);
  }
  EXPECT_EQ(inflater.finish().error().code, Code::kNoSpace);
}

}  // namespace
}  // namespace hydrant::image
