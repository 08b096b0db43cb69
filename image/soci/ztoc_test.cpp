#include "image/soci/ztoc.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "image/index/index_fixture.h"
#include "image/index/layer_layout.h"
#include "image/soci/ztoc_fixture.h"

namespace hydrant::image {
namespace {

using namespace fixture;
using testing::HasSubstr;

struct Sample {
  Buffer stored;
  Built built;
  std::shared_ptr<const LayerIndex> index;
  Flat ztoc;

  LayerExpectation expected() const { return {sha256(stored), stored.size(), {}, "application/x"}; }
};

Sample sample(Buffer stored, const Buffer& plain) {
  auto built = build(stored, expectation(stored, plain), {.span = 256 << 10});
  EXPECT_TRUE(built) << built.error().what;
  auto index = *LayerIndex::load(built->layer.index, {});
  Flat made = ztoc(*index, stored);
  return {std::move(stored), *std::move(built), std::move(index), std::move(made)};
}

TEST(Ztoc, MakesTheDeviceAndTheTreeThatStreamingMakes) {
  const Buffer plain = tar(many_files(2));
  for (const Buffer& stored : {gzip(plain), gzip(plain, 1, 10'000), plain}) {
    const Sample s = sample(stored, plain);
    auto made = build_ztoc_index(s.ztoc.buffer(), s.expected());
    ASSERT_TRUE(made) << made.error().what;
    auto index = LayerIndex::load(made->index, s.expected());
    ASSERT_TRUE(index) << index.error().what;
    EXPECT_EQ(*(*index)->files(), *s.index->files());
    EXPECT_EQ((*index)->rows(), s.index->rows());
    EXPECT_TRUE((*index)->proven_as_stored());
    const LayerLayout layout(*index);
    for (uint64_t at : {uint64_t(0), layout.device_size() / 2, layout.device_size() - 1}) {
      const Fill fill = layout.plan({at, at + 1});
      Buffer out;
      auto done = layout.decode(fill, Bytes(stored).subspan(fill.stored.begin, fill.stored.size()),
                                [&](uint64_t, Bytes bytes) { return append(out, bytes), Result<>(); });
      ASSERT_TRUE(done) << done.error().what;
      EXPECT_EQ(out, to_buffer(Bytes(s.built.device).subspan(fill.device.begin, fill.device.size())));
    }
  }
}

TEST(Ztoc, TheFirstVersionLacksTheFirstCheckpoint) {
  const Buffer plain = tar(many_files(3));
  Sample s = sample(gzip(plain), plain);
  auto& checkpoints = std::get<Buffer>(s.ztoc[5][3].value);
  checkpoints.erase(checkpoints.begin() + 12, checkpoints.begin() + 12 + 17 + kWindowSize);
  auto made = build_ztoc_index(s.ztoc.buffer(), s.expected());
  ASSERT_TRUE(made) << made.error().what;
  EXPECT_EQ((*LayerIndex::load(made->index, {}))->span(0).start, (Checkpoint{10, 0, 0, false}));
}

TEST(Ztoc, AttributesAreWhatPaxRecordsSay) {
  const Buffer plain = tar({{"a", text(5000)}});
  Sample s = sample(gzip(plain), plain);
  auto& file = std::get<std::vector<Flat>>(s.ztoc[4][0].value)[0];
  auto& fields = std::get<Flat::Table>(file.value);
  const auto record = [](const char* key, const char* value) { return Flat(Flat::Table{{0, key}, {1, value}}); };
  fields.emplace(6, 1000), fields.emplace(7, 0xffffffff);
  fields.insert_or_assign(10, Flat("2023-11-14T22:13:20.5+01:00"));
  fields.emplace(13, std::vector<Flat>{record("SCHILY.xattr.user.x", "1"), record("mtime", "17")});
  auto made = build_ztoc_index(s.ztoc.buffer(), s.expected());
  ASSERT_TRUE(made) << made.error().what;
  const auto files = *(*LayerIndex::load(made->index, {}))->files();
  EXPECT_EQ(files[0].uid, 1000U);
  EXPECT_EQ(files[0].gid, 0xffffffffU);
  EXPECT_EQ(files[0].mode, 0644);
  EXPECT_EQ(files[0].mtime, 1'700'000'000 - 3600);
  EXPECT_EQ(files[0].mtime_nsec, 500'000'000U);
  EXPECT_THAT(files[0].xattrs, testing::ElementsAre(Xattr{"user.x", "1"}));

  fields.insert_or_assign(13, std::vector<Flat>{record("GNU.sparse.major", "1")});
  auto sparse = build_ztoc_index(s.ztoc.buffer(), s.expected());
  ASSERT_FALSE(sparse);
  EXPECT_EQ(sparse.error().code, Code::kUnsupported);
  EXPECT_THAT(sparse.error().what, HasSubstr("\"a\" is sparse"));
}

TEST(Ztoc, ContradictionsAreRefused) {
  const Buffer plain = tar(many_files(4));
  const Sample good = sample(gzip(plain), plain);
  const auto why = [&](auto change) -> Code {
    Flat ztoc = good.ztoc;
    change(ztoc);
    auto made = build_ztoc_index(ztoc.buffer(), good.expected());
    return made ? Code::kOk : made.error().code;
  };
  ASSERT_EQ(why([](Flat&) {}), Code::kOk);
  const auto list = [](Flat& flat) -> std::vector<Flat>& { return std::get<std::vector<Flat>>(flat.value); };
  EXPECT_EQ(why([](Flat& z) { z[0] = "2.0"; }), Code::kUnsupported);
  EXPECT_EQ(why([](Flat& z) { z[2] = 5; }), Code::kCorrupt) << "another layer's";
  EXPECT_EQ(why([](Flat& z) { z[3] = -1; }), Code::kCorrupt);
  EXPECT_EQ(why([](Flat& z) { z[3] = 1000; }), Code::kCorrupt) << "spans behind the tar";
  EXPECT_EQ(why([&](Flat& z) { list(z[5][2]).pop_back(); }), Code::kCorrupt);
  EXPECT_EQ(why([&](Flat& z) { list(z[5][2])[0] = "md5:1"; }), Code::kUnsupported);
  EXPECT_EQ(why([](Flat& z) { z[5][0] = 3; }), Code::kUnsupported);
  EXPECT_EQ(why([](Flat& z) { std::get<Buffer>(z[5][3].value).pop_back(); }), Code::kCorrupt);
  EXPECT_EQ(why([](Flat& z) { std::get<Buffer>(z[5][3].value)[12 + 17 + kWindowSize + 16] = std::byte{9}; }),
            Code::kCorrupt);
  EXPECT_EQ(why([&](Flat& z) { list(z[4][0])[5][2] = int64_t{1} << 40; }), Code::kCorrupt);
  EXPECT_EQ(why([&](Flat& z) { list(z[4][0])[5][2] = 100; }), Code::kCorrupt) << "no place of a tar's data";
  EXPECT_EQ(why([&](Flat& z) { std::swap(list(z[4][0])[5], list(z[4][0])[6]); }), Code::kCorrupt);
  EXPECT_EQ(why([&](Flat& z) { list(z[4][0])[5][0] = "../up"; }), Code::kCorrupt);
  EXPECT_EQ(why([&](Flat& z) { list(z[4][0])[5][10] = "yesterday"; }), Code::kCorrupt);
}

TEST(Ztoc, OffsetsThatLeadAwayOrInCirclesEnd) {
  const Buffer plain = tar({{"a", text(5000)}, {"b", noise(300)}});
  const Sample s = sample(gzip(plain), plain);
  const Buffer bytes = s.ztoc.buffer();
  for (size_t size = 0; size < 400; ++size) EXPECT_FALSE(build_ztoc_index(Bytes(bytes).first(size), s.expected()));
  for (size_t at = 0; at < std::min<size_t>(bytes.size(), 600); ++at) {
    for (uint8_t value : {0x00, 0x7f, 0xff}) {
      Buffer bad = bytes;
      bad[at] = std::byte(value);
      auto made = build_ztoc_index(bad, s.expected());
      EXPECT_TRUE(!made || LayerIndex::load(made->index, {})) << at;
    }
  }
}

}  // namespace
}  // namespace hydrant::image
