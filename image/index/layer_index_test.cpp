#include "image/index/layer_index.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>

#include "base/file.h"
#include "image/index/index_fixture.h"
#include "image/index/zstd_frame.h"
#include "proto/merkle.h"

namespace hydrant::image {
namespace {

using namespace fixture;

FileEntry entry(std::string path, FileType type) {
  FileEntry out;
  out.path = std::move(path);
  out.type = type;
  out.mode = 0755;
  return out;
}

// One of everything.
LayerIndexContent sample() {
  LayerIndexContent content;
  content.ident = {.digest = sha256(as_bytes("stored")),
                   .stored_size = 5000,
                   .media_type = "application/vnd.oci.image.layer.v1.tar+gzip",
                   .diff_id = sha256(as_bytes("tar")),
                   .tar_size = 900'000,
                   .compression = Compression::kGzip,
                   .stored_end = 4990,
                   .device_size = 167'936,
                   .granule = 64 << 10,
                   .span = 256 << 10,
                   .generator = "test"};
  content.checkpoints = {{}, {1200, 300'000, 3, false}, {2500, 600'000, 0, true}};
  content.windows = {{}, zstd_compress(text(kWindowSize), 3), {}};
  content.rows = {{0, 1024, 70'000}, {73'728, 72'192, 10}, {77'824 + 100, 73'216, 90'000}};
  for (auto leaf : {"a", "b", "c"}) content.leaves.push_back(sha256(as_bytes(leaf)));

  auto& files = content.files;
  files.push_back(entry("", FileType::kDirectory));
  files.push_back(entry("usr", FileType::kDirectory));
  files.back().mtime = -5;
  files.back().mtime_nsec = 999'999'999;
  files.push_back(entry("usr/app", FileType::kRegular));
  files.back().mode = 04755;
  files.back().uid = 4'000'000'000;
  files.back().gid = 7;
  files.back().size = 70'000;
  files.back().data = {{0, 0, 70'000}};
  files.back().xattrs = {{"security.capability", std::string("\1\0\0\2", 4)}, {"user.a", ""}};
  files.push_back(entry("usr/app2", FileType::kHardLink));
  files.back().link_target = "usr/app";
  files.push_back(entry("usr/sparse", FileType::kRegular));
  files.back().mtime = 1'700'000'000;
  files.back().size = 10'000'000;
  files.back().data = {{4096, 73'728, 10}, {8192 + 100, 77'824 + 100, 90'000}};
  files.back().xattrs = files[2].xattrs;
  files.push_back(entry("usr/link", FileType::kSymlink));
  files.back().link_target = "../else/where";
  files.push_back(entry("usr/null", FileType::kCharDevice));
  files.back().rdev_major = 1;
  files.back().rdev_minor = 3;
  files.push_back(entry("usr/gone", FileType::kWhiteout));
  files.push_back(entry("usr/opaque", FileType::kOpaque));
  return content;
}

TEST(LayerIndex, GivesBackWhatWasPutIn) {
  const auto content = sample();
  auto loaded = LayerIndex::load(encode_layer_index(content), {});
  ASSERT_TRUE(loaded) << loaded.error().what;
  const LayerIndex& index = **loaded;
  EXPECT_EQ(index.ident(), content.ident);
  EXPECT_EQ(index.rows(), content.rows);
  EXPECT_EQ(index.leaves(), content.leaves);
  EXPECT_EQ(index.merkle_root(), proto::merkle_root(content.leaves, {167'936, 64 << 10, kLayoutVersion}));
  auto files = index.files();
  ASSERT_TRUE(files) << files.error().what;
  EXPECT_EQ(*files, content.files);
  ASSERT_EQ(index.span_count(), 3u);
  EXPECT_EQ(index.span(1).start, content.checkpoints[1]);
  EXPECT_EQ(index.span(1).stored(), (ByteRange{1199, 2500}));
  EXPECT_EQ(index.span(2).plain(), (ByteRange{600'000, 900'000}));
  EXPECT_EQ(index.span(2).stored(), (ByteRange{2500, 4990}));
  EXPECT_EQ(index.span_at(0), 0u);
  EXPECT_EQ(index.span_at(299'999), 0u);
  EXPECT_EQ(index.span_at(300'000), 1u);
  EXPECT_EQ(index.span_at(899'999), 2u);
  EXPECT_TRUE(index.window(0)->empty());
  EXPECT_TRUE(*index.window(1) == text(kWindowSize));
}

// The file that docs/formats/layer-index.md describes: what an older program wrote stays readable. (Bytes are not
// compared: another version of zstd may pack the same sections differently.)
TEST(LayerIndex, TheGoldenFileStaysReadable) {
  auto golden = read_file(HYDRANT_TESTDATA "/layer-index-v1.bin");
  ASSERT_TRUE(golden) << golden.error().what;
  auto loaded = LayerIndex::load(to_buffer(as_bytes(*golden)), {});
  ASSERT_TRUE(loaded) << loaded.error().what;
  EXPECT_EQ((*loaded)->ident(), sample().ident);
  EXPECT_EQ(*(*loaded)->files(), sample().files);
  EXPECT_EQ((*loaded)->rows(), sample().rows);
}

// The same layer by a table of contents: two members, the first shared by three chunks.
LayerIndexContent sample_by_chunks() {
  LayerIndexContent content = sample();
  content.ident.diff_id = {};
  content.ident.tar_size = 160'010;
  content.ident.span = 0;
  content.checkpoints.clear();
  content.windows.clear();
  content.leaves.clear();
  content.rows = {{0, 0, 70'000}, {73'728, 70'000, 10}, {77'824 + 100, 70'010, 90'000}};
  content.toc = sha256(as_bytes("table"));
  content.chunks = {{100, 512, 50'000, sha256(as_bytes("a"))},
                    {100, 50'512, 20'000, sha256(as_bytes("b"))},
                    {100, 71'000, 10, sha256(as_bytes("c"))},
                    {3000, 0, 90'000, sha256(as_bytes("d"))}};
  return content;
}

TEST(LayerIndex, ByChunksItGivesBackWhatWasPutIn) {
  const auto content = sample_by_chunks();
  auto golden = read_file(HYDRANT_TESTDATA "/layer-index-v2.bin");
  ASSERT_TRUE(golden) << golden.error().what;
  for (const Buffer& bytes : {encode_layer_index(content), to_buffer(as_bytes(*golden))}) {
    auto loaded = LayerIndex::load(bytes, {});
    ASSERT_TRUE(loaded) << loaded.error().what;
    const LayerIndex& index = **loaded;
    EXPECT_EQ(index.ident(), content.ident);
    EXPECT_EQ(index.toc(), content.toc);
    EXPECT_EQ(index.chunks(), content.chunks);
    EXPECT_EQ(index.rows(), content.rows);
    EXPECT_EQ(*index.files(), content.files);
    EXPECT_EQ(index.widest_span(), 2900U);
    EXPECT_EQ(index.chunk_at(69'999), 1U);
    EXPECT_EQ(index.chunk_at(70'000), 2U);
    EXPECT_EQ(index.chunk_begin(3), 70'010U);
    EXPECT_EQ(index.chunk_begin(4), 160'010U);
  }
}

TEST(LayerIndex, SpansProvenAsStoredThatCannotBeAreRefused) {
  const auto load = [](auto change) {
    auto content = sample();
    content.leaves.clear();
    content.stored_digests.assign(content.checkpoints.size(), sha256(as_bytes("span")));
    change(content);
    return LayerIndex::load(encode_layer_index(content), {});
  };
  auto good = load([](LayerIndexContent&) {});
  ASSERT_TRUE(good) << good.error().what;
  EXPECT_TRUE((*good)->proven_as_stored());
  EXPECT_FALSE(load([](LayerIndexContent& c) { c.stored_digests.pop_back(); }));
  EXPECT_FALSE(load([](LayerIndexContent& c) { c.checkpoints[0].plain_offset = 1; }));
  EXPECT_FALSE(load([](LayerIndexContent& c) { c.checkpoints[0] = {1, 0, 3, false}; }));
  EXPECT_FALSE(load([](LayerIndexContent& c) { c.ident.compression = Compression::kNone; }));
}

TEST(LayerIndex, ChunksThatCannotBeAreRefused) {
  const auto refused = [](auto change) {
    auto content = sample_by_chunks();
    change(content);
    auto loaded = LayerIndex::load(encode_layer_index(content), {});
    return !loaded && loaded.error().code == Code::kCorrupt;
  };
  EXPECT_FALSE(refused([](LayerIndexContent&) {}));
  EXPECT_TRUE(refused([](LayerIndexContent& c) { c.chunks.pop_back(); }));
  EXPECT_TRUE(refused([](LayerIndexContent& c) { c.chunks[3].stored_offset = c.ident.stored_end; }));
  EXPECT_TRUE(refused([](LayerIndexContent& c) { c.chunks[3].length += 1; }));
  EXPECT_TRUE(refused([](LayerIndexContent& c) { c.chunks[1].inner_offset = 50'511; }));
  EXPECT_TRUE(refused([](LayerIndexContent& c) { c.chunks[0].length = 0; }));
  EXPECT_TRUE(refused([](LayerIndexContent& c) { c.chunks[3].inner_offset = kMaxChunk + 1; }));
  EXPECT_TRUE(refused([](LayerIndexContent& c) { c.chunks[3].stored_offset = 99; }));
  EXPECT_TRUE(refused([](LayerIndexContent& c) { c.ident.compression = Compression::kNone; }));
}

TEST(LayerIndex, FilesCanBeServedFromDisk) {
  std::string dir = "/tmp/hydrant-index-XXXXXX";
  ASSERT_TRUE(mkdtemp(dir.data()));
  const std::string path = dir + "/index";
  ASSERT_TRUE(write_file_atomic(path, encode_layer_index(sample())));
  auto loaded = LayerIndex::load_file(path, {});
  ASSERT_TRUE(loaded) << loaded.error().what;
  EXPECT_EQ(*(*loaded)->files(), sample().files);
  EXPECT_TRUE(*(*loaded)->window(1) == text(kWindowSize));
  ASSERT_EQ(truncate(path.c_str(), 500), 0);
  EXPECT_FALSE((*loaded)->window(1));
  EXPECT_FALSE((*loaded)->files());
  EXPECT_EQ(LayerIndex::load_file(path, {}).error().code, Code::kCorrupt);
  ASSERT_EQ(unlink(path.c_str()), 0);
  EXPECT_EQ(LayerIndex::load_file(path, {}).error().code, Code::kNotFound);
  rmdir(dir.c_str());
}

TEST(LayerIndex, IsRefusedForAnotherLayer) {
  const auto content = sample();
  const Buffer bytes = encode_layer_index(content);
  LayerExpectation right{content.ident.digest, 5000, content.ident.diff_id, ""};
  EXPECT_TRUE(LayerIndex::load(bytes, right));
  auto wrong = right;
  wrong.digest = sha256({});
  EXPECT_EQ(LayerIndex::load(bytes, wrong).error().code, Code::kCorrupt);
  wrong = right;
  wrong.diff_id = sha256({});
  EXPECT_EQ(LayerIndex::load(bytes, wrong).error().code, Code::kCorrupt);
  wrong = right;
  wrong.size = 5001;
  EXPECT_EQ(LayerIndex::load(bytes, wrong).error().code, Code::kCorrupt);
}

TEST(LayerIndex, AnyCutAndAnyChangedByteIsRefused) {
  const Buffer bytes = encode_layer_index(sample());
  for (size_t size = 0; size < bytes.size(); ++size) {
    auto loaded = LayerIndex::load(to_buffer(Bytes(bytes).first(size)), {});
    ASSERT_FALSE(loaded) << size;
    EXPECT_EQ(loaded.error().code, Code::kCorrupt);
  }
  for (size_t at = 0; at < bytes.size(); at += at < 600 ? 1 : 13) {
    Buffer bad = bytes;
    bad[at] ^= std::byte{0x04};
    EXPECT_FALSE(LayerIndex::load(std::move(bad), {})) << at;
  }
}

// Digests do not help against whoever made the index: every field must hold on its own.
TEST(LayerIndex, LyingContentIsRefused) {
  auto refused = [](auto change) {
    LayerIndexContent content = sample();
    change(content);
    auto loaded = LayerIndex::load(encode_layer_index(content), {});
    return !loaded || !(*loaded)->files();
  };
  EXPECT_FALSE(refused([](auto&) {}));
  EXPECT_TRUE(refused([](auto& c) { c.ident.device_size += 4096; }));
  EXPECT_TRUE(refused([](auto& c) { c.ident.device_size += 1; }));
  EXPECT_TRUE(refused([](auto& c) { c.ident.device_size = UINT64_MAX & ~4095ull; }));
  EXPECT_TRUE(refused([](auto& c) { c.ident.granule = 3 << 16; }));
  EXPECT_TRUE(refused([](auto& c) { c.ident.granule = 0; }));
  EXPECT_TRUE(refused([](auto& c) { c.ident.stored_end = 6000; }));
  EXPECT_TRUE(refused([](auto& c) { c.ident.stored_end = 2000; }));
  EXPECT_TRUE(refused([](auto& c) { c.ident.tar_size = 100'000; }));
  EXPECT_TRUE(refused([](auto& c) { c.ident.compression = Compression::kNone; }));
  EXPECT_TRUE(refused([](auto& c) { c.ident.layout_version = 2; }));
  EXPECT_TRUE(refused([](auto& c) { c.checkpoints[1].stored_offset = 0; }));
  EXPECT_TRUE(refused([](auto& c) { c.checkpoints[1].plain_offset = 0; }));
  EXPECT_TRUE(refused([](auto& c) { c.checkpoints[1].plain_offset = 700'000; }));
  EXPECT_TRUE(refused([](auto& c) { c.checkpoints[0].plain_offset = 1; }));
  EXPECT_TRUE(refused([](auto& c) { c.checkpoints[2].bits = 1; }));
  EXPECT_TRUE(refused([](auto& c) { c.windows[2] = c.windows[1]; }));
  EXPECT_TRUE(refused([](auto& c) { c.leaves.pop_back(); }));
  EXPECT_TRUE(refused([](auto& c) { c.leaves.push_back({}); }));
  EXPECT_TRUE(refused([](auto& c) { c.files[2].path = "/usr/app"; }));
  EXPECT_TRUE(refused([](auto& c) { c.files[2].path = "usr/../app"; }));
  EXPECT_TRUE(refused([](auto& c) { c.files[2].path = "usr//app"; }));
  EXPECT_TRUE(refused([](auto& c) { c.files[2].path = "usr/"; }));
  EXPECT_TRUE(refused([](auto& c) { c.files[2].path = ""; }));
  EXPECT_TRUE(refused([](auto& c) { c.files[2].path = std::string(256, 'x'); }));
  EXPECT_TRUE(refused([](auto& c) { c.files[2].path = std::string("a\0b", 3); }));
  EXPECT_TRUE(refused([](auto& c) { c.files[2].size = 60'000; }));
  EXPECT_TRUE(refused([](auto& c) { c.files[2].size = UINT64_MAX; }));
  EXPECT_TRUE(refused([](auto& c) { c.files[2].mode = 010000; }));
  EXPECT_TRUE(refused([](auto& c) { c.files[2].mtime_nsec = 1'000'000'000; }));
  EXPECT_TRUE(refused([](auto& c) { c.files[2].type = FileType::kSymlink; }));
  EXPECT_TRUE(refused([](auto& c) { c.files[2].type = FileType(11); }));
  EXPECT_TRUE(refused([](auto& c) { c.files[2].data[0].file_offset = 1; }));
  EXPECT_TRUE(refused([](auto& c) { c.files[3].link_target = "../x"; }));
  EXPECT_TRUE(refused([](auto& c) { std::swap(c.files[2].xattrs[0], c.files[2].xattrs[1]); }));
}

}  // namespace
}  // namespace hydrant::image
