#include "image/toc/toc_layer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "image/index/layer_layout.h"
#include "image/toc/toc_fixture.h"
#include "image/toc/toc_footer.h"
#include "image/toc/toc_json.h"

namespace hydrant::image {
namespace {

using namespace fixture;
using nlohmann::json;
using testing::HasSubstr;

LayerExpectation layer_of(const TocBlob& blob) { return {sha256(blob.stored), blob.stored.size(), {}, "some/type"}; }

Result<std::shared_ptr<const LayerIndex>> index_of(const TocBlob& blob) {
  const auto toc = toc_reference(blob.annotations);
  if (!toc) return fail(Code::kNotFound, "no annotation");
  auto place = toc->place;
  if (!place) {
    HYDRANT_TRY(place, decode_toc_footer(toc->kind, blob.stored, blob.stored.size()));
  }
  HYDRANT_TRY(auto built,
              build_toc_index(*toc, *place, Bytes(blob.stored).subspan(place->stored.begin, place->stored.size()),
                              layer_of(blob)));
  return LayerIndex::load(std::move(built.index), layer_of(blob));
}

// Of files whose table the twist lies in.
Result<std::shared_ptr<const LayerIndex>> twisted(std::function<void(json& entries)> twist, TocOptions options = {}) {
  options.twist = [twist = std::move(twist)](json& document) { twist(document["entries"]); };
  options.chunk = 100'000;
  return index_of(toc_blob({{"a", text(1000)}, {"b", noise(300'000)}, {"c", text(50)}}, options));
}

void expect_refused(std::function<void(json& entries)> twist, Code code, const char* word) {
  auto index = twisted(std::move(twist));
  ASSERT_FALSE(index) << word;
  EXPECT_EQ(index.error().code, code) << index.error().what;
  EXPECT_THAT(index.error().what, HasSubstr(word));
}

// Any range of the device comes out of the stored blob, whole granules of it, and nothing else.
void expect_device(const LayerIndex& index, const std::shared_ptr<const Layout>& layout, const TocBlob& blob,
                   const Buffer& device) {
  ASSERT_EQ(index.ident().device_size, device.size());
  std::mt19937_64 random(7);
  for (int round = 0; round < 60; ++round) {
    const uint64_t begin = random() % device.size();
    const uint64_t size = 1 + random() % std::min<uint64_t>(device.size() - begin, round % 5 ? 100'000 : 4'000'000);
    const Fill fill = layout->plan({begin, begin + size});
    ASSERT_TRUE(fill.device.contains(ByteRange{begin, begin + size}));
    ASSERT_LE(fill.stored.end, blob.stored.size());
    Buffer got;
    auto decoder = layout->decoder(fill, [&](uint64_t offset, Bytes bytes) -> Result<> {
      EXPECT_EQ(offset, fill.device.begin + got.size());
      append(got, bytes);
      return {};
    });
    Bytes stored = Bytes(blob.stored).subspan(fill.stored.begin, fill.stored.size());
    while (!stored.empty()) {
      const size_t step = std::min<size_t>(stored.size(), 1 + random() % 70'000);
      auto fed = decoder->feed(stored.first(step));
      ASSERT_TRUE(fed) << fed.error().what;
      stored = stored.subspan(step);
    }
    auto finished = decoder->finish();
    ASSERT_TRUE(finished) << finished.error().what;
    const auto expected = Bytes(device).subspan(fill.device.begin, fill.device.size());
    ASSERT_TRUE(std::equal(got.begin(), got.end(), expected.begin(), expected.end()));
  }
}

TEST(TocLayer, MakesTheTableAndTheDeviceThatReadingTheTarMakes) {
  const auto files = many_files(3);
  const Buffer plain = tar(files);
  auto walked = build(gzip(plain), expectation(gzip(plain), plain));
  ASSERT_TRUE(walked);
  auto tar_index = *LayerIndex::load(walked->layer.index, {});
  for (const TocOptions& options : std::vector<TocOptions>{
           {},
           {.chunk = 4 << 20},
           {.chunk = 10'000},
           {.shared = true},
           {.kind = TocKind::kZstdChunked},
           {.kind = TocKind::kZstdChunked, .chunk = 33'333, .position = false},
           {.kind = TocKind::kZstdChunked, .position = false, .short_footer = true},
           {.kind = TocKind::kZstdChunked, .prefix = "io.containers.zstd-chunked."},
       }) {
    const TocBlob blob = toc_blob(files, options);
    auto index = index_of(blob);
    ASSERT_TRUE(index) << index.error().what;
    EXPECT_EQ(*(*index)->files(), *tar_index->files());
    EXPECT_TRUE((*index)->by_chunks());
    EXPECT_TRUE(is_lazy((*index)->widest_span()));
    expect_device(**index, make_layout(*index), blob, walked->device);
  }
}

TEST(TocLayer, AByteThatIsNotTheTablesIsNeverHandedOut) {
  TocBlob blob = toc_blob({{"a", noise(500'000)}, {"b", text(200'000)}}, {.chunk = 100'000});
  auto index = index_of(blob);
  ASSERT_TRUE(index);
  auto layout = make_layout(*index);
  const uint64_t bad = (*index)->chunks()[2].stored_offset;
  // Stored noise stands in the member as it is, so that the member stays whole but for one byte.
  blob.stored[bad + 500] ^= std::byte{1};
  const Fill fill = layout->plan({0, layout->device_size()});
  uint64_t got = 0;
  auto done = layout->decode(fill, Bytes(blob.stored).subspan(fill.stored.begin, fill.stored.size()),
                             [&](uint64_t, Bytes bytes) { return got += bytes.size(), Result<>(); });
  ASSERT_FALSE(done);
  EXPECT_EQ(done.error().code, Code::kCorrupt);
  EXPECT_LE(got, 200'000U);
  EXPECT_GT(got, 100'000U);
}

TEST(TocLayer, KnowsEveryKindOfEntry) {
  TocWriter writer({});
  auto entry = [](const char* name, const char* type, json more = json::object()) {
    json made = {{"name", name}, {"type", type}, {"modtime", "2001-09-09T03:46:40.5+02:00"}};
    made.update(more);
    return made;
  };
  writer.add(entry("./usr/", "dir", {{"mode", 01777}, {"uid", 3'000'000}, {"xattrs", {{"user.x", "AQID"}}}}));
  writer.add_file({"usr/file", text(100)});
  writer.add(entry("usr/hard", "hardlink", {{"linkName", "/usr/file"}}));
  writer.add(entry("usr/soft", "symlink", {{"linkName", "../else"}, {"unknown", {{"deep", json::array({1, "x"})}}}}));
  writer.add(entry("usr/null", "char", {{"devMajor", 1}, {"devMinor", 3}, {"mode", 0666}}));
  writer.add(entry("usr/disk", "block", {{"devMajor", 259}, {"devMinor", 1'000'000}}));
  writer.add(entry("usr/pipe", "fifo"));
  writer.add(entry("usr/.wh.gone", "reg"));
  writer.add(entry("usr/.wh..wh..opq", "reg"));
  writer.add(entry("usr/overlaid", "dir", {{"xattrs", {{"trusted.overlay.opaque", "eQ=="}}}}));
  writer.add_file({".prefetch.landmark", text(1)});
  writer.add_file({".no.prefetch.landmark", text(1)});
  auto index = index_of(writer.finish());
  ASSERT_TRUE(index) << index.error().what;
  const FileTable files = *(*index)->files();
  ASSERT_EQ(files.size(), 10U);
  EXPECT_EQ(files[0].path, "usr");
  EXPECT_EQ(files[0].type, FileType::kDirectory);
  EXPECT_EQ(files[0].mode, 01777);
  EXPECT_EQ(files[0].uid, 3'000'000U);
  EXPECT_EQ(files[0].mtime, 1'000'000'000);
  EXPECT_EQ(files[0].mtime_nsec, 500'000'000U);
  EXPECT_EQ(files[0].xattrs, (std::vector<Xattr>{{"user.x", "\1\2\3"}}));
  EXPECT_EQ(files[2].type, FileType::kHardLink);
  EXPECT_EQ(files[2].link_target, "usr/file");
  EXPECT_EQ(files[3].link_target, "../else");
  EXPECT_EQ(files[4].type, FileType::kCharDevice);
  EXPECT_EQ(files[4].rdev_minor, 3U);
  EXPECT_EQ(files[5].rdev_minor, 1'000'000U);
  EXPECT_EQ(files[6].type, FileType::kFifo);
  EXPECT_EQ(files[7].type, FileType::kWhiteout);
  EXPECT_EQ(files[7].path, "usr/gone");
  EXPECT_EQ(files[8].type, FileType::kOpaque);
  EXPECT_TRUE(files[9].xattrs.empty());
}

TEST(TocLayer, AChunkOfZerosIsAHole) {
  Buffer data = noise(30'000);
  std::fill(data.begin() + 10'000, data.begin() + 20'000, std::byte{0});
  const auto zeros = [](json& document) { document["entries"][1]["chunkType"] = "zeros"; };
  const TocBlob blob = toc_blob({{"f", data}}, {.kind = TocKind::kZstdChunked, .chunk = 10'000, .twist = zeros});
  auto index = index_of(blob);
  ASSERT_TRUE(index) << index.error().what;
  const FileTable files = *(*index)->files();
  ASSERT_EQ(files.size(), 1U);
  EXPECT_EQ(files[0].data, (std::vector<DataPiece>{{0, 0, 10'000}, {20'000, 12'288 + 20'000 % 4096, 10'000}}));
  EXPECT_EQ(files[0].size, 30'000U);
}

TEST(TocLayer, ALayerWithoutDataHasNoDevice) {
  auto index = index_of(toc_blob({{"empty", {}}}));
  ASSERT_TRUE(index) << index.error().what;
  EXPECT_EQ((*index)->ident().device_size, 0U);
  EXPECT_EQ((*index)->files()->size(), 1U);
}

TEST(TocLayer, ATableWithAnotherDigestIsRefused) {
  for (auto kind : {TocKind::kEstargz, TocKind::kZstdChunked}) {
    TocBlob blob = toc_blob({{"a", text(100)}}, {.kind = kind});
    for (auto& [name, value] : blob.annotations)
      if (name.ends_with("digest") || name.ends_with("checksum")) value = sha256(as_bytes("else")).text();
    auto index = index_of(blob);
    ASSERT_FALSE(index);
    EXPECT_EQ(index.error().code, Code::kCorrupt);
    EXPECT_THAT(index.error().what, HasSubstr("digest"));
  }
}

TEST(TocLayer, TablesThatContradictThemselvesAreRefused) {
  ASSERT_TRUE(twisted([](json&) {}));  // a: 0; b: 1, 2, 3; c: 4
  expect_refused(
      [](json& all) {
        all[0]["size"] = 2000;
        all[0]["chunkSize"] = 1000;
      },
      Code::kCorrupt, "cover");
  expect_refused([](json& all) { all[1]["size"] = uint64_t(1) << 60; }, Code::kUnsupported, "16 TiB");
  expect_refused([](json& all) { all[2]["chunkOffset"] = 99'999; }, Code::kCorrupt, "cover");
  expect_refused([](json& all) { all[3]["chunkOffset"] = UINT64_MAX; }, Code::kCorrupt, "cover");
  expect_refused([](json& all) { all[2]["chunkSize"] = UINT64_MAX; }, Code::kCorrupt, "cover");
  expect_refused([](json& all) { all[2].erase("chunkDigest"); }, Code::kUnsupported, "digest");
  expect_refused([](json& all) { all[2]["chunkDigest"] = "md5:00"; }, Code::kUnsupported, "digest");
  expect_refused([](json& all) { all[4]["offset"] = uint64_t(1) << 50; }, Code::kCorrupt, "behind");
  expect_refused([](json& all) { all[4]["offset"] = all[2]["offset"]; }, Code::kUnsupported, "order");
  expect_refused([](json& all) { all[4]["innerOffset"] = uint64_t(1) << 40; }, Code::kUnsupported, "MiB");
  expect_refused([](json& all) { std::swap(all[2], all[3]); }, Code::kCorrupt, "cover");
  expect_refused([](json& all) { std::swap(all[2], all[4]); }, Code::kCorrupt, "cover");
  expect_refused([](json& all) { all[2]["name"] = "other"; }, Code::kCorrupt, "no file");
  expect_refused([](json& all) { all.erase(0), all.erase(0); }, Code::kCorrupt, "no file");
  expect_refused([](json& all) { all[0]["name"] = "../a"; }, Code::kCorrupt, "..");
  expect_refused([](json& all) { all[0]["name"] = std::string("a\0b", 3); }, Code::kCorrupt, "NUL");
  expect_refused([](json& all) { all[0]["name"] = std::string(4097, 'x'); }, Code::kUnsupported, "255");
  expect_refused([](json& all) { all[0]["name"] = "n\xef\xbf\xbd"; }, Code::kUnsupported, "UTF-8");
  expect_refused([](json& all) { all[0]["type"] = "socket"; }, Code::kUnsupported, "type");
  expect_refused([](json& all) { all[0]["uid"] = uint64_t(1) << 32; }, Code::kUnsupported, "32 bits");
  expect_refused([](json& all) { all[0]["uid"] = -1; }, Code::kCorrupt, "negative");
  expect_refused([](json& all) { all[0]["size"] = 1.5; }, Code::kCorrupt, "whole");
  expect_refused([](json& all) { all[0]["size"] = "1"; }, Code::kCorrupt, "text");
  expect_refused([](json& all) { all[0]["name"] = 7; }, Code::kCorrupt, "number");
  expect_refused([](json& all) { all[0]["name"] = json::object(); }, Code::kCorrupt, "object");
  expect_refused([](json& all) { all[0]["modtime"] = "yesterday"; }, Code::kCorrupt, "time");
  expect_refused([](json& all) { all[0]["xattrs"] = {{"user.x", "*"}}; }, Code::kCorrupt, "base64");
  expect_refused([](json& all) { all = json::object(); }, Code::kCorrupt, "entries");
  expect_refused([](json& all) { all = {json::array()}; }, Code::kCorrupt, "list");
  json deep = 1;
  for (int i = 0; i < 40; ++i) deep = json::array({deep});
  expect_refused([&](json& all) { all[0]["unknown"] = deep; }, Code::kCorrupt, "deep");
}

TEST(TocLayer, DataMayStandInAnotherOrderThanTheEntries) {
  auto moved = twisted([](json& all) {
    const json c = all[4];
    all.erase(4);
    all.insert(all.begin(), c);
  });
  ASSERT_TRUE(moved) << moved.error().what;
  EXPECT_EQ((*(*moved)->files())[0].path, "c");
  EXPECT_GT((*(*moved)->files())[0].data[0].device_offset, 300'000U);
}

TEST(TocReference, OnlyADigestOfTheManifestsMakesOne) {
  const std::string digest = sha256(as_bytes("x")).text();
  EXPECT_FALSE(toc_reference({}));
  EXPECT_FALSE(toc_reference({{"containerd.io/snapshot/stargz/toc.digest", "sha256:beef"}}));
  EXPECT_EQ(toc_reference({{"containerd.io/snapshot/stargz/toc.digest", digest}})->kind, TocKind::kEstargz);
  const std::string prefix = "io.github.containers.zstd-chunked.";
  EXPECT_FALSE(toc_reference({{prefix + "manifest-position", "1:2:3:1"}}));
  EXPECT_EQ(toc_reference({{prefix + "manifest-checksum", digest}})->place, std::nullopt);
  EXPECT_EQ(
      toc_reference({{prefix + "manifest-checksum", digest}, {prefix + "manifest-position", "10:20:30:1"}})->place,
      (TocPlace{{10, 30}, 30}));
  for (const char* bad :
       {"", "1", "1:2:3", "1:2:3:1:5", "1:2:3:2", "-1:2:3:1", "1:0:3:1", "1:x:3:1", "9223372036854775808:1:1:1"})
    EXPECT_FALSE(toc_reference({{prefix + "manifest-checksum", digest}, {prefix + "manifest-position", bad}})) << bad;
}

TEST(TocFooter, SaysWhereTheTableIsOrWhyNot) {
  const auto extra = [](std::string field) {
    std::string footer("\x1f\x8b\x08\x04\0\0\0\0\0\xff", 10);
    footer += char(field.size());
    footer += '\0';
    return footer + field + std::string("\x01\0\0\xff\xff\0\0\0\0\0\0\0\0", 13);
  };
  const auto decode = [](const std::string& tail, uint64_t size, TocKind kind = TocKind::kEstargz) {
    return decode_toc_footer(kind, as_bytes(tail), size);
  };
  const std::string sg("SG\x16\0", 4), external("SG\x11\0", 4);
  EXPECT_EQ(decode(extra(sg + "0000000000000064STARGZ"), 1051)->stored, (ByteRange{100, 1000}));
  EXPECT_EQ(decode("more " + extra("0000000000000064STARGZ"), 1047)->stored, (ByteRange{100, 1000}));
  EXPECT_EQ(decode(extra(sg + "00000000000003e8STARGZ"), 1051).error().code, Code::kCorrupt);
  EXPECT_EQ(decode(extra(sg + "ffffffffffffffffSTARGZ"), 1051).error().code, Code::kCorrupt);
  EXPECT_EQ(decode(extra(sg + "00000000000000G4STARGZ"), 1051).error().code, Code::kUnsupported);
  EXPECT_THAT(decode(extra(external + "STARGZEXTERNALTOC"), 1000).error().what, HasSubstr("another image"));
  EXPECT_EQ(decode("", 0).error().code, Code::kUnsupported);
  EXPECT_EQ(decode(std::string(100, 'x'), 1000).error().code, Code::kUnsupported);
  EXPECT_EQ(decode("GNUlInUx", 8, TocKind::kZstdChunked).error().code, Code::kUnsupported);

  Buffer footer;
  for (uint64_t number : {100, 50, 1000, 2}) append_le(footer, number);
  append(footer, as_bytes("GNUlInUx"));
  EXPECT_THAT(decode_toc_footer(TocKind::kZstdChunked, skippable(footer), 1000).error().what, HasSubstr("type 2"));
}

TEST(TocJson, ReadsTimesOfAllZones) {
  EXPECT_EQ(parse_rfc3339("1970-01-01T00:00:00Z"), std::pair(int64_t(0), 0U));
  EXPECT_EQ(parse_rfc3339("1969-12-31T23:59:59.25Z"), std::pair(int64_t(-1), 250'000'000U));
  EXPECT_EQ(parse_rfc3339("2001-09-09T01:46:40.123456789Z"), std::pair(int64_t(1'000'000'000), 123'456'789U));
  EXPECT_EQ(parse_rfc3339("2001-09-08T20:16:40-05:30"), std::pair(int64_t(1'000'000'000), 0U));
  for (const char* bad : {"", "2001", "2001-02-30T00:00:00Z", "2001-01-01T00:00:00", "2001-01-01T24:00:00Z",
                          "2001-01-01T00:00:00.Z", "2001-01-01T00:00:00+1", "2001-01-01 00:00:00Z"})
    EXPECT_FALSE(parse_rfc3339(bad)) << bad;
}

}  // namespace
}  // namespace hydrant::image
