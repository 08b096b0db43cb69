#include "proto/content_map_file.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>

#include "base/file.h"

namespace hydrant::proto {
namespace {

ContentMapFile sample() {
  ContentMapFile map{.generation = 3, .inode = 0x1122334455, .object_size = 40'000'000, .file_size = 40'001'536};
  for (size_t i = 0; i < map.identity.size(); ++i) map.identity[i] = std::byte(i * 17);
  map.leaves.resize(2);
  map.leaves[0].bits[0] = 0b1011;
  map.leaves[1].index = 2;
  map.leaves[1].bits[63] = uint64_t{1} << 63;
  return map;
}

TEST(ContentMapFile, RoundTrips) { EXPECT_EQ(decode_content_map(encode_content_map(sample())).value(), sample()); }

// The golden file of docs/formats/content-map.md: a change of the format needs a new version and a decoder for the old
// one.
TEST(ContentMapFile, TheFormatDoesNotDrift) {
  auto golden = read_file(HYDRANT_TESTDATA "/content-map-v1.bin");
  ASSERT_TRUE(golden) << golden.error().what;
  const Bytes bytes = as_bytes(*golden);
  ASSERT_EQ(bytes.size(), content_map_file_size(2));
  EXPECT_EQ(decode_content_map(bytes).value(), sample());
  EXPECT_TRUE(std::ranges::equal(encode_content_map(sample()), bytes));
}

TEST(ContentMapFile, EveryFlippedByteIsNoticed) {
  auto bytes = encode_content_map(sample());
  for (size_t at = 0; at < bytes.size(); ++at) {
    auto bad = bytes;
    bad[at] ^= std::byte(0x40);
    EXPECT_FALSE(decode_content_map(bad)) << at;
  }
}

TEST(ContentMapFile, EveryTruncationIsNoticed) {
  auto bytes = encode_content_map(sample());
  for (size_t size = 0; size < bytes.size(); ++size) EXPECT_FALSE(decode_content_map(Bytes(bytes).first(size)));
}

TEST(ContentMapFile, LeavesOutOfOrderAreRefusedEvenWithARightChecksum) {
  auto map = sample();
  std::swap(map.leaves[0], map.leaves[1]);
  EXPECT_EQ(decode_content_map(encode_content_map(map)).error().code, Code::kCorrupt);
}

}  // namespace
}  // namespace hydrant::proto
