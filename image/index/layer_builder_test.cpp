#include "image/index/layer_builder.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "image/erofs/erofs_fixture.h"
#include "image/index/index_fixture.h"
#include "image/index/layer_layout.h"
#include "image/zstd/zstd_fixture.h"

namespace hydrant::image {
namespace {

using namespace fixture;
using testing::HasSubstr;

void expect_files(const Built& built, const std::vector<TarFile>& files) {
  auto index = LayerIndex::load(built.layer.index, {});
  ASSERT_TRUE(index) << index.error().what;
  auto table = (*index)->files();
  ASSERT_TRUE(table) << table.error().what;
  ASSERT_EQ(table->size(), files.size());
  for (size_t i = 0; i < files.size(); ++i) {
    const FileEntry& entry = (*table)[i];
    EXPECT_EQ(entry.path, files[i].name);
    ASSERT_EQ(entry.size, files[i].data.size());
    Buffer content(entry.size);
    for (const auto& piece : entry.data) {
      EXPECT_EQ(piece.device_offset % 4096, piece.file_offset % 4096);
      std::copy_n(built.device.begin() + ptrdiff_t(piece.device_offset), piece.length,
                  content.begin() + ptrdiff_t(piece.file_offset));
    }
    EXPECT_TRUE(content == files[i].data) << entry.path;
  }
}

TEST(LayerBuilder, DeviceAndTableHoldEveryFileOfGzipAndPlainTar) {
  const auto files = many_files();
  const Buffer plain = tar(files), stored = gzip(plain);
  Digest root;
  for (const Buffer* blob : {&stored, &plain}) {
    auto built = build(*blob, expectation(*blob, plain));
    ASSERT_TRUE(built) << built.error().what;
    EXPECT_EQ(built->layer.ident.device_size, built->device.size());
    EXPECT_EQ(built->layer.ident.tar_size, plain.size());
    EXPECT_EQ(built->layer.files, files.size());
    EXPECT_EQ(built->layer.ident.compression, blob == &plain ? Compression::kNone : Compression::kGzip);
    expect_files(*built, files);
    if (root.is_zero()) root = built->layer.merkle_root;
    EXPECT_EQ(built->layer.merkle_root, root) << "the device does not depend on how the tar is stored";
  }
}

TEST(LayerBuilder, AnErofsImageIsALayerWhateverItIsWrappedIn) {
  ErofsMaker maker;
  const Buffer large = noise(300'000), small = text(700);
  const auto file = maker.plain(large);
  const Buffer plain = maker.image(maker.directory({{"large", file}, {"same", file}, {"small", maker.inlined(small)}}));
  Digest root;
  for (const Buffer& stored : {plain, gzip(plain), zstd(plain)}) {
    for (size_t step : {size_t(100), stored.size()}) {
      auto built = build(stored, expectation(stored, plain, "application/vnd.erofs.layer.v1"), {}, step);
      ASSERT_TRUE(built) << built.error().what;
      EXPECT_EQ(built->layer.ident.tar_size, plain.size());
      EXPECT_EQ(built->device.size(), round_up(large.size(), 4096) + 4096) << "nothing of the metadata, nothing twice";
      auto index = LayerIndex::load(built->layer.index, {});
      ASSERT_TRUE(index) << index.error().what;
      auto files = (*index)->files();
      ASSERT_TRUE(files) << files.error().what;
      ASSERT_EQ(files->size(), 4U);
      EXPECT_EQ((*files)[2].type, FileType::kHardLink);
      const auto& piece = (*files)[3].data.at(0);
      EXPECT_EQ(to_buffer(Bytes(built->device).subspan(piece.device_offset, piece.length)), small);
      if (root.is_zero()) root = built->layer.merkle_root;
      EXPECT_EQ(built->layer.merkle_root, root);
      // What the middle of the stored blob yields is what the stream did.
      LayerLayout layout(*index);
      Buffer again;
      const Fill fill = layout.plan({0, layout.device_size()});
      auto decoded = layout.decode(fill, Bytes(stored).subspan(fill.stored.begin, fill.stored.size()),
                                   [&](uint64_t, Bytes bytes) { return append(again, bytes), Result<>(); });
      ASSERT_TRUE(decoded) << decoded.error().what;
      EXPECT_EQ(again, built->device);
    }
  }
}

TEST(LayerBuilder, AnErofsImageIsNotLookedIntoUntilItIsProven) {
  ErofsMaker maker;
  Buffer plain = maker.image(maker.directory({{"a", maker.plain(noise(9000))}}));
  auto expected = expectation(plain, plain);
  plain[4096] ^= std::byte{0xff};  // the first inode
  auto built = build(plain, expected);
  ASSERT_FALSE(built);
  EXPECT_THAT(built.error().what, HasSubstr("digest"));
  EXPECT_EQ(build(plain, {}, {.spool = "/nonexistent"}).error().code, Code::kNotFound);
}

TEST(LayerBuilder, AnArchiveWithTheMagicAtThatPlaceIsATar) {
  Buffer data(5000);
  store_le(data.data() + 512, proto::erofs::kMagic);
  const Buffer plain = tar({{"image", data}});
  auto built = build(plain, expectation(plain, plain));
  ASSERT_TRUE(built) << built.error().what;
  expect_files(*built, {{"image", data}});
}

TEST(LayerBuilder, IsDeterministicHoweverItIsFed) {
  const Buffer plain = tar(many_files(9)), stored = gzip(plain, 6, 30'000);
  const auto expected = expectation(stored, plain);
  auto first = build(stored, expected, {}, stored.size());
  ASSERT_TRUE(first);
  for (size_t step : {size_t(1'000), size_t(777'777)}) {
    auto again = build(stored, expected, {}, step);
    ASSERT_TRUE(again);
    EXPECT_TRUE(again->layer.index == first->layer.index);
    EXPECT_TRUE(again->device == first->device);
  }
}

TEST(LayerBuilder, SparseFilesTakeNoSpaceForHoles) {
  // A GNU sparse member in its old form: two segments with a hole of many blocks, and one that shares a block.
  std::vector<TarFile> files{{"sparse", Buffer(3 * 512)}};
  for (size_t i = 0; i < files[0].data.size(); ++i) files[0].data[i] = std::byte(1 + i / 512);
  Buffer plain = tar(files);
  auto* header = reinterpret_cast<char*>(plain.data());
  header[156] = 'S';
  std::copy_n("ustar  ", 8, header + 257);
  auto octal = [&](size_t at, uint64_t value) { std::snprintf(header + at, 12, "%011lo", value); };
  octal(386, 512), octal(398, 512);                // block 0
  octal(410, 2048), octal(422, 512);               // block 0 again
  octal(434, 100 * 4096 + 1024), octal(446, 512);  // block 100
  octal(483, 1'000'000);
  std::fill_n(header + 148, 8, ' ');
  unsigned sum = 0;
  for (size_t i = 0; i < 512; ++i) sum += uint8_t(header[i]);
  std::snprintf(header + 148, 8, "%06o", sum);

  const Buffer stored = gzip(plain);
  auto built = build(stored, expectation(stored, plain));
  ASSERT_TRUE(built) << built.error().what;
  EXPECT_EQ(built->device.size(), 2 * 4096u);
  auto table = (*LayerIndex::load(built->layer.index, {}))->files();
  ASSERT_TRUE(table);
  EXPECT_EQ((*table)[0].size, 1'000'000u);
  const std::vector<DataPiece> pieces{{512, 512, 512}, {2048, 2048, 512}, {100 * 4096 + 1024, 4096 + 1024, 512}};
  EXPECT_EQ((*table)[0].data, pieces);
  EXPECT_EQ(built->device[512], std::byte{1});
  EXPECT_EQ(built->device[2048], std::byte{2});
  EXPECT_EQ(built->device[4096 + 1024], std::byte{3});
  EXPECT_EQ(built->device[4096], std::byte{0});
}

TEST(LayerBuilder, EmptyLayersHaveAnEmptyDevice) {
  const Buffer plain(1024);
  for (const Buffer& stored : {gzip(plain), plain}) {
    auto built = build(stored, expectation(stored, plain));
    ASSERT_TRUE(built) << built.error().what;
    EXPECT_EQ(built->layer.ident.device_size, 0u);
    EXPECT_TRUE(LayerIndex::load(built->layer.index, {}));
  }
}

TEST(LayerBuilder, WrongDigestsAndSizesNameBoth) {
  const Buffer plain = tar(many_files()), stored = gzip(plain);
  auto expected = expectation(stored, plain);
  expected.diff_id.bytes[0] ^= std::byte{1};
  auto built = build(stored, expected);
  ASSERT_FALSE(built);
  EXPECT_EQ(built.error().code, Code::kCorrupt);
  EXPECT_THAT(built.error().what, HasSubstr(expected.diff_id.hex()));
  EXPECT_THAT(built.error().what, HasSubstr(sha256(plain).hex()));

  expected = expectation(stored, plain);
  expected.digest.bytes[0] ^= std::byte{1};
  built = build(stored, expected);
  ASSERT_FALSE(built);
  EXPECT_EQ(built.error().code, Code::kCorrupt);
  EXPECT_THAT(built.error().what, HasSubstr(expected.digest.hex()));
  EXPECT_THAT(built.error().what, HasSubstr(sha256(stored).hex()));

  expected = expectation(stored, plain);
  *expected.size += 1;
  built = build(stored, expected);
  ASSERT_FALSE(built);
  EXPECT_EQ(built.error().code, Code::kCorrupt);
}

TEST(LayerBuilder, TruncatedAndChangedLayersAreCorruptAndNamed) {
  const Buffer plain = tar(many_files()), stored = gzip(plain);
  const auto expected = expectation(stored, plain);
  for (size_t size : {size_t(0), size_t(1), size_t(300), stored.size() / 2, stored.size() - 1}) {
    auto built = build(Bytes(stored).first(size), expected);
    ASSERT_FALSE(built) << size;
    EXPECT_EQ(built.error().code, Code::kCorrupt);
    EXPECT_THAT(built.error().what, HasSubstr(expected.digest.text()));
  }
  std::mt19937 random(5);
  for (int round = 0; round < 20; ++round) {
    Buffer bad = stored;
    bad[10 + random() % (bad.size() - 10)] ^= std::byte(1 << random() % 8);
    auto built = build(bad, expected);
    ASSERT_FALSE(built);
    EXPECT_THAT(built.error().what, HasSubstr(expected.digest.text()));
  }
  Buffer tail = stored;
  append(tail, text(20));
  auto built = build(tail, expectation(tail, plain));
  ASSERT_FALSE(built);
  EXPECT_EQ(built.error().code, Code::kCorrupt);
}

TEST(LayerBuilder, ZstdIsKnownByItsFirstBytesAndSaysHowFarApartItsFramesAre) {
  const Buffer plain = tar(many_files(8));
  for (size_t frame : {size_t(0), size_t(200'000)}) {
    const Buffer stored = zstd(plain, frame);
    auto built = build(stored, expectation(stored, plain));  // whose media type says gzip
    ASSERT_TRUE(built) << built.error().what;
    EXPECT_EQ(built->layer.ident.compression, Compression::kZstd);
    EXPECT_TRUE(built->device == build(plain, expectation(plain, plain))->device);
    auto index = LayerIndex::load(built->layer.index, {});
    ASSERT_TRUE(index) << index.error().what;
    if (frame) {
      EXPECT_LT((*index)->widest_span(), stored.size() / 4);
    } else {
      EXPECT_EQ((*index)->widest_span(), stored.size());
    }
    EXPECT_EQ((*index)->lazy(), built->layer.lazy);
  }
  Buffer damaged = noise(2000);
  store_le<uint32_t>(damaged.data(), 0xfd2fb528);
  auto built = build(damaged, expectation(damaged, damaged, "layer.v1.tar+zstd"));
  ASSERT_FALSE(built);
  EXPECT_NE(built.error().code, Code::kIo) << built.error().what;
}

TEST(LayerBuilder, OtherCompressionsAreUnsupportedByName) {
  const Buffer unknown = noise(2000, 3);
  auto built = build(unknown, expectation(unknown, unknown, "application/x-something"));
  ASSERT_FALSE(built);
  EXPECT_EQ(built.error().code, Code::kUnsupported);
  EXPECT_THAT(built.error().what, HasSubstr("application/x-something"));
  built = build(unknown, expectation(unknown, unknown));
  ASSERT_FALSE(built);
  EXPECT_EQ(built.error().code, Code::kCorrupt);
}

TEST(LayerBuilder, PassesTheSinksErrorOn) {
  const Buffer plain = tar({{"large", noise(30 << 20)}}), stored = gzip(plain, 1);
  LayerBuilder builder(expectation(stored, plain), {},
                       [](uint64_t, Bytes) -> Result<> { return fail(Code::kNoSpace, "disk full"); });
  Result<> fed;
  for (size_t at = 0; at < stored.size() && fed; at += 100'000)
    fed = builder.feed(Bytes(stored).subspan(at, std::min<size_t>(100'000, stored.size() - at)));
  auto built = builder.finish();
  ASSERT_FALSE(built);
  EXPECT_EQ(built.error().code, Code::kNoSpace);
}

TEST(LayerBuilder, CanBeDroppedInTheMiddle) {
  const Buffer stored = gzip(tar(many_files()));
  for (size_t size : {size_t(0), size_t(700), stored.size() / 2}) {
    LayerBuilder builder({}, {}, nullptr);
    EXPECT_TRUE(builder.feed(Bytes(stored).first(size)));
  }
}

}  // namespace
}  // namespace hydrant::image
