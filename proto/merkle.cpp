#include "proto/merkle.h"

#include <vector>

namespace hydrant::proto {
namespace {

constexpr uint8_t kLeaf = 0, kInner = 1, kRoot = 2;
constexpr uint8_t kSha256 = 1;

Digest hash(uint8_t prefix, Bytes first, Bytes second = {}) {
  Sha256 sha;
  sha.update(std::as_bytes(std::span(&prefix, 1)));
  sha.update(first);
  sha.update(second);
  return sha.finish();
}

}  // namespace

Digest leaf_digest(Bytes granule) { return hash(kLeaf, granule); }

Digest merkle_root(std::span<const Digest> leaves, const MerkleShape& shape) {
  std::vector<Digest> level(leaves.begin(), leaves.end());
  while (level.size() > 1) {
    size_t out = 0;
    for (size_t i = 0; i < level.size(); i += 2)
      level[out++] = i + 1 < level.size() ? hash(kInner, level[i].bytes, level[i + 1].bytes) : level[i];
    level.resize(out);
  }
  Buffer bound;
  append_le<uint8_t>(bound, kSha256);
  append_le<uint64_t>(bound, shape.granule);
  append_le<uint64_t>(bound, shape.device_size);
  append_le<uint32_t>(bound, shape.layout_version);
  return hash(kRoot, bound, level.empty() ? Digest{}.bytes : level[0].bytes);
}

}  // namespace hydrant::proto
