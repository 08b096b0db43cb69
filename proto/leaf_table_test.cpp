#include "proto/leaf_table.h"

#include <gtest/gtest.h>

#include "base/file.h"

namespace hydrant::proto {
namespace {

constexpr MerkleShape kShape{.device_size = 300 << 10, .granule = 128 << 10, .layout_version = 1};

Buffer sample() {
  std::vector<Digest> leaves;
  for (char each : {'a', 'b', 'c'}) leaves.push_back(leaf_digest(as_bytes(std::string(1, each))));
  return encode_leaf_table(kShape, merkle_root(leaves, kShape), leaves);
}

TEST(LeafTable, RoundTrips) {
  auto table = decode_leaf_table(sample());
  ASSERT_TRUE(table) << table.error().what;
  EXPECT_EQ(table->proof.shape, kShape);
  EXPECT_EQ(table->leaves.size(), 3u);
  EXPECT_EQ(table->leaves[1], leaf_digest(as_bytes("b")));
  EXPECT_EQ(decode_leaf_header(Bytes(sample()).first(kLeafTableHeader), sample().size()).value(), table->proof);
}

// The golden file of docs/formats/leaf-table.md.
TEST(LeafTable, TheFormatDoesNotDrift) {
  auto golden = read_file(HYDRANT_TESTDATA "/leaf-table-v1.bin");
  ASSERT_TRUE(golden) << golden.error().what;
  EXPECT_EQ(to_buffer(as_bytes(*golden)), sample());
}

TEST(LeafTable, EveryFlippedByteIsNoticed) {
  Buffer good = sample();
  for (size_t at = 0; at < good.size(); ++at) {
    Buffer bad = good;
    bad[at] ^= std::byte(0x40);
    EXPECT_FALSE(decode_leaf_table(bad)) << at;
  }
}

TEST(LeafTable, EveryOtherLengthIsRefused) {
  Buffer table = sample();
  for (size_t size = 0; size < table.size(); ++size) EXPECT_FALSE(decode_leaf_table(Bytes(table).first(size)));
  table.push_back(std::byte(0));
  EXPECT_FALSE(decode_leaf_table(table));
}

TEST(LeafTable, ImpossibleShapesAreRefused) {
  EXPECT_FALSE(check_shape({.device_size = 4096, .granule = 0}));
  EXPECT_FALSE(check_shape({.device_size = 4096, .granule = 96 << 10}));
  EXPECT_FALSE(check_shape({.device_size = 4096, .granule = 8 << 20}));
  EXPECT_FALSE(check_shape({.device_size = UINT64_MAX - 4095, .granule = 128 << 10}));
  EXPECT_TRUE(check_shape({.device_size = 0, .granule = 128 << 10}));
}

}  // namespace
}  // namespace hydrant::proto
