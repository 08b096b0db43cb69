#include "image/erofs/chunk_index.h"

#include <gtest/gtest.h>

namespace hydrant::image {
namespace {

struct Header {
  uint8_t version = 1, compression = 1;
  uint16_t flags = 0;
  uint64_t size = 10'000;
  uint8_t hash = 1, hash_size = 32;
  uint8_t reserved = 0;
};

Buffer payload(const Header& header, const std::vector<std::pair<uint64_t, uint64_t>>& chunks) {
  Buffer out{std::byte{0xcd}, std::byte{0xe4}, std::byte{0xec}, std::byte{0x67}};
  append_le(out, header.version);
  append_le(out, header.compression);
  append_le(out, header.flags);
  append_le(out, header.size);
  append_le(out, uint32_t(chunks.size()));
  append_le(out, header.hash);
  append_le(out, header.hash_size);
  out.resize(31);
  append_le(out, header.reserved);
  for (auto [stored, plain] : chunks) {
    append_le(out, stored);
    append_le(out, plain);
    append(out, sha256(as_bytes(std::to_string(stored))).bytes);
  }
  return out;
}

TEST(ErofsChunkIndex, ChunksEndWhereTheNextBegins) {
  auto index = decode_erofs_chunk_index(payload({}, {{0, 0}, {700, 4096}, {1500, 8192}}), 2000);
  ASSERT_TRUE(index) << index.error().what;
  EXPECT_TRUE(index->zstd);
  ASSERT_EQ(index->chunks.size(), 3U);
  EXPECT_EQ(index->chunks[1], (ErofsChunk{{700, 1500}, {4096, 8192}, sha256(as_bytes("700"))}));
  EXPECT_EQ(index->chunks[2].stored, (ByteRange{1500, 2000}));
  EXPECT_EQ(index->chunks[2].plain, (ByteRange{8192, 10'000}));
  auto plain = decode_erofs_chunk_index(payload({.compression = 0}, {{0, 0}, {4096, 4096}}), 12'000);
  ASSERT_TRUE(plain) << plain.error().what;
  EXPECT_EQ(plain->chunks[1].stored, (ByteRange{4096, 10'000})) << "the image ends before the index begins";
}

TEST(ErofsChunkIndex, WhatDoesNotFitIsRefused) {
  const auto why = [](const Buffer& bytes, uint64_t stored = 2000) {
    auto index = decode_erofs_chunk_index(bytes, stored);
    return index ? Code::kOk : index.error().code;
  };
  const std::vector<std::pair<uint64_t, uint64_t>> two{{0, 0}, {700, 4096}};
  ASSERT_EQ(why(payload({}, two)), Code::kOk);
  EXPECT_EQ(why(payload({.version = 2}, two)), Code::kUnsupported);
  EXPECT_EQ(why(payload({.compression = 2}, two)), Code::kUnsupported);
  EXPECT_EQ(why(payload({.flags = 1}, two)), Code::kUnsupported);
  EXPECT_EQ(why(payload({.hash = 0, .hash_size = 0}, {})), Code::kUnsupported) << "nothing would prove the chunks";
  EXPECT_EQ(why(payload({}, {})), Code::kUnsupported);
  EXPECT_EQ(why(payload({.reserved = 1}, two)), Code::kCorrupt);
  EXPECT_EQ(why(payload({}, {{0, 1}, {700, 4096}})), Code::kCorrupt);
  EXPECT_EQ(why(payload({}, {{0, 0}, {0, 4096}})), Code::kCorrupt);
  EXPECT_EQ(why(payload({}, {{0, 0}, {700, 10'000}})), Code::kCorrupt);
  EXPECT_EQ(why(payload({}, {{0, 0}, {2000, 4096}})), Code::kCorrupt);
  EXPECT_EQ(why(payload({.compression = 0}, two)), Code::kUnsupported);
  EXPECT_EQ(why(payload({.compression = 0}, {{0, 0}})), Code::kCorrupt) << "longer than the blob";
  EXPECT_EQ(why(payload({.size = 1ULL << 40}, {{0, 0}}), 1ULL << 39), Code::kUnsupported);
  Buffer cut = payload({}, two);
  cut.pop_back();
  EXPECT_EQ(why(cut), Code::kCorrupt);
  EXPECT_EQ(why({}), Code::kCorrupt);
}

TEST(ErofsChunkIndex, TheManifestBindsItByItsDigest) {
  std::map<std::string, std::string> annotations{{"org.erofs.chunk-index.range", "1000:1180"},
                                                 {"org.erofs.chunk-index.digest", sha256(as_bytes("x")).text()}};
  auto place = erofs_chunk_index_place(annotations, true, 1180);
  ASSERT_TRUE(place);
  EXPECT_EQ(place->stored, (ByteRange{1008, 1180})) << "in a frame";
  EXPECT_EQ(place->stored_end, 1000U);
  EXPECT_EQ(erofs_chunk_index_place(annotations, false, 1180)->stored, (ByteRange{1000, 1180}));
  EXPECT_FALSE(erofs_chunk_index_place(annotations, true, 1179));
  annotations["org.erofs.chunk-index.range"] = "1000";
  EXPECT_EQ(erofs_chunk_index_place(annotations, true, 1200)->stored, (ByteRange{1008, 1200}));
  for (const char* range : {"", "x", "5:4", "1:2:3", "1175:1180"}) {
    annotations["org.erofs.chunk-index.range"] = range;
    EXPECT_FALSE(erofs_chunk_index_place(annotations, true, 1180)) << range;
  }
  annotations["org.erofs.chunk-index.range"] = "1000";
  annotations["org.erofs.chunk-index.mediaType"] = "application/x-other";
  EXPECT_FALSE(erofs_chunk_index_place(annotations, true, 1180));
  annotations.erase("org.erofs.chunk-index.mediaType");
  annotations.erase("org.erofs.chunk-index.digest");
  EXPECT_FALSE(erofs_chunk_index_place(annotations, true, 1180));
}

}  // namespace
}  // namespace hydrant::image
