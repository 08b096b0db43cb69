#include "proto/merkle.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

namespace hydrant::proto {
namespace {

TEST(Merkle, RootBindsLeavesOrderAndShape) {
  std::vector<Digest> leaves;
  std::vector<Digest> roots;
  for (uint32_t i = 0; i < 9; ++i) {
    roots.push_back(merkle_root(leaves, {1 << 20, 64 << 10, 1}));
    leaves.push_back(leaf_digest(std::as_bytes(std::span(&i, 1))));
  }
  std::swap(leaves[0], leaves[1]);
  roots.push_back(merkle_root(leaves, {1 << 20, 64 << 10, 1}));
  roots.push_back(merkle_root(leaves, {1 << 20, 128 << 10, 1}));
  roots.push_back(merkle_root(leaves, {2 << 20, 64 << 10, 1}));
  roots.push_back(merkle_root(leaves, {1 << 20, 64 << 10, 2}));
  std::sort(roots.begin(), roots.end());
  EXPECT_EQ(std::adjacent_find(roots.begin(), roots.end()), roots.end());
}

TEST(Merkle, TheLastGranuleMayBeShort) {
  MerkleShape shape{.device_size = 300'000, .granule = 128 << 10, .layout_version = 1};
  EXPECT_EQ(shape.leaves(), 3u);
  EXPECT_EQ(shape.granule_range(1), (ByteRange{128 << 10, 256 << 10}));
  EXPECT_EQ(shape.granule_range(2), (ByteRange{256 << 10, 300'000}));
}

}  // namespace
}  // namespace hydrant::proto
