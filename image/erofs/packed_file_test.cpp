#include "image/erofs/packed_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <lzma.h>
#include <zlib.h>

#include "image/erofs/decompress.h"
#include "image/erofs/erofs_fixture.h"
#include "image/gzip/gzip_fixture.h"
#include "image/zstd/zstd_fixture.h"

namespace hydrant::image {
namespace {

using namespace fixture;
using proto::erofs::Algorithm;
using testing::HasSubstr;

Buffer deflate(Bytes plain) {
  z_stream stream{};
  deflateInit2(&stream, 9, Z_DEFLATED, -MAX_WBITS, 8, Z_DEFAULT_STRATEGY);
  Buffer out(plain.size() + 1000);
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<std::byte*>(plain.data()));
  stream.avail_in = uInt(plain.size());
  stream.next_out = reinterpret_cast<Bytef*>(out.data());
  stream.avail_out = uInt(out.size());
  ::deflate(&stream, Z_FINISH);
  out.resize(stream.total_out);
  deflateEnd(&stream);
  return out;
}

Buffer micro_lzma(Bytes plain) {
  lzma_options_lzma options;
  lzma_lzma_preset(&options, 1);
  lzma_stream stream = LZMA_STREAM_INIT;
  EXPECT_EQ(lzma_microlzma_encoder(&stream, &options), LZMA_OK);
  Buffer out(plain.size() + 1000);
  stream.next_in = reinterpret_cast<const uint8_t*>(plain.data());
  stream.avail_in = plain.size();
  stream.next_out = reinterpret_cast<uint8_t*>(out.data());
  stream.avail_out = out.size();
  EXPECT_EQ(lzma_code(&stream, LZMA_FINISH), LZMA_STREAM_END);
  out.resize(stream.total_out);
  lzma_end(&stream);
  return out;
}

Buffer pack(Algorithm algorithm, Bytes plain) {
  switch (algorithm) {
    case Algorithm::kLz4: return lz4(plain);
    case Algorithm::kLzma: return micro_lzma(plain);
    case Algorithm::kDeflate: return deflate(plain);
    case Algorithm::kZstd: return zstd(plain);
  }
  return {};
}

// The compressed files by their paths, or why not.
Result<std::map<std::string, Buffer>> unpacked(const Buffer& image) {
  HYDRANT_TRY(auto table, read_erofs(image));
  std::map<std::string, Buffer> files;
  HYDRANT_TRY_VOID(unpack_erofs(table, reader_of(image), [&](size_t packed, uint64_t offset, Bytes bytes) {
    Buffer& file = files[table.files[table.packed[packed].file].path];
    EXPECT_EQ(offset, file.size());
    append(file, bytes);
    return Result<>();
  }));
  for (const auto& each : table.packed) files[table.files[each.file].path];
  return files;
}

std::string why(const Buffer& image, Code code) {
  auto files = unpacked(image);
  if (files) return "it was read";
  EXPECT_EQ(files.error().code, code) << files.error().what;
  return files.error().what;
}

Buffer one_file(ErofsMaker& maker, uint64_t nid) { return maker.image(maker.directory({{"dir-file", nid}})); }

TEST(ErofsPackedFile, EveryAlgorithmYieldsTheFile) {
  for (auto algorithm : {Algorithm::kLz4, Algorithm::kLzma, Algorithm::kDeflate, Algorithm::kZstd}) {
    ErofsMaker maker;
    const Buffer data = text(100'000);
    const auto pack_of = [&](size_t at, size_t size) {
      return maker.cluster(pack(algorithm, Bytes(data).subspan(at, size)));
    };
    const ErofsCluster whole = pack_of(0, 60'000), plain = maker.cluster(Bytes(data).subspan(61'440, 4096), false);
    const std::vector<ErofsExtent> extents{
        {whole, 60'000}, {pack_of(60'000, 1440), 1440}, {plain, 4096}, {pack_of(65'536, 34'464), 34'464}};
    proto::erofs::PackedHeader header;
    header.algorithms = uint8_t(algorithm);
    const auto file = maker.packed(extents, header), sharing = maker.packed({{whole, 33'333, true}}, header);
    auto files = unpacked(maker.image(maker.directory({{"file", file}, {"sharing", sharing}})));
    ASSERT_TRUE(files) << to_string(algorithm) << ": " << files.error().what;
    EXPECT_TRUE((*files)["file"] == data) << to_string(algorithm);
    EXPECT_TRUE((*files)["sharing"] == to_buffer(Bytes(data).first(33'333))) << to_string(algorithm);
  }
}

TEST(ErofsPackedFile, FragmentsComeFromThePackedInode) {
  ErofsMaker maker;
  const Buffer data = text(50'000), head = text(10'000);
  maker.plain({});
  maker.super.packed_nid = maker.packed({{maker.cluster(lz4(Bytes(data).first(30'000))), 30'000},
                                         {maker.cluster(lz4(Bytes(data).subspan(30'000))), 20'000}});
  proto::erofs::PackedHeader header;
  header.advise = proto::erofs::kAdviseFragment;
  header.tail = 29'000;
  const auto tail = maker.packed({{maker.cluster(lz4(head)), 10'000}, {{}, 5000}}, header);
  const auto root = maker.directory({{"late", maker.fragment(100, 49'900)},
                                     {"tail", tail},
                                     {"all", maker.fragment(50'000, 0)},
                                     {"in", maker.fragment(9, 7)}});
  auto files = unpacked(maker.image(root));
  ASSERT_TRUE(files) << files.error().what;
  auto part = [&](size_t at, size_t size) { return to_buffer(Bytes(data).subspan(at, size)); };
  Buffer whole = head;
  append(whole, part(29'000, 5000));
  EXPECT_TRUE((*files)["tail"] == whole);
  EXPECT_TRUE((*files)["all"] == data);
  EXPECT_TRUE((*files)["late"] == part(49'900, 100));
  EXPECT_TRUE((*files)["in"] == part(7, 9));
}

TEST(ErofsPackedFile, WhatCannotBeIsCorruptAndNamed) {
  const Buffer data = text(20'000);
  const Buffer stored = lz4(data);
  {
    ErofsMaker maker;
    EXPECT_THAT(why(one_file(maker, maker.packed({{maker.cluster(stored), 20'001}})), Code::kCorrupt),
                HasSubstr("\"dir-file\": a cluster is no LZ4"));
  }
  {
    ErofsMaker maker;
    EXPECT_THAT(why(one_file(maker, maker.packed({{maker.cluster(stored), 19'999}})), Code::kCorrupt),
                HasSubstr("no LZ4"));
  }
  {
    ErofsMaker maker;
    EXPECT_THAT(why(one_file(maker, maker.packed({{maker.cluster({}), 20'000}, {{true, 9, 1}, 4096}})), Code::kCorrupt),
                HasSubstr("dir-file"));
  }
  {
    ErofsMaker maker;  // outside of the image
    EXPECT_THAT(why(one_file(maker, maker.packed({{{true, 1'000'000, 1}, 20'000}})), Code::kCorrupt),
                HasSubstr("outside"));
  }
  {
    ErofsMaker maker;  // not compressed, and longer than its cluster
    EXPECT_THAT(
        why(one_file(maker, maker.packed({{maker.cluster(Bytes(data).first(4096), false), 5000}})), Code::kCorrupt),
        HasSubstr("longer than its cluster"));
  }
  {
    ErofsMaker maker;
    EXPECT_THAT(why(one_file(maker, maker.fragment(10, 10)), Code::kCorrupt), HasSubstr("packed inode"));
  }
  {
    ErofsMaker maker;
    maker.plain({});
    maker.super.packed_nid = maker.packed({{maker.cluster(stored), 20'000}});
    EXPECT_THAT(why(one_file(maker, maker.fragment(10, 19'991)), Code::kCorrupt),
                HasSubstr("outside of the packed inode"));
  }
  {
    ErofsMaker maker;
    maker.plain({});
    maker.super.packed_nid = maker.fragment(20'000, 0);
    EXPECT_THAT(why(one_file(maker, maker.fragment(10, 0)), Code::kCorrupt), HasSubstr("has a fragment"));
  }
}

TEST(ErofsPackedFile, WhatIsNotKnownIsUnsupportedAndNamed) {
  ErofsMaker maker;
  proto::erofs::PackedHeader header;
  header.algorithms = 5;
  EXPECT_THAT(why(one_file(maker, maker.packed({{maker.cluster(lz4(text(5000))), 5000}}, header)), Code::kUnsupported),
              HasSubstr("\"dir-file\": is compressed by algorithm 5"));
  ErofsMaker bomb;
  EXPECT_THAT(why(one_file(bomb, bomb.packed({{{true, 1, 300}, 20'000}})), Code::kUnsupported), HasSubstr("1 MiB"));
}

TEST(ErofsPackedFile, FlippedBitsNeverYieldMoreThanTheFile) {
  ErofsMaker maker;
  const Buffer data = text(40'000);
  maker.super.packed_nid = maker.packed({{maker.cluster(lz4(data)), 40'000}});
  const auto file =
      maker.packed({{maker.cluster(lz4(Bytes(data).first(20'000))), 20'000}, {maker.cluster(lz4(data)), 40'000}});
  const Buffer image = maker.image(maker.directory({{"file", file}, {"part", maker.fragment(300, 39'000)}}));
  std::mt19937 random(7);
  for (int i = 0; i < 3000; ++i) {
    Buffer bad = image;
    bad[random() % bad.size()] ^= std::byte(1 << random() % 8);
    bad[4096 + random() % 1000] ^= std::byte(1 << random() % 8);
    (void)unpacked(bad);
  }
}

}  // namespace
}  // namespace hydrant::image
