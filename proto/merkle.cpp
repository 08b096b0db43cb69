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

std::optional<ByteRange> first_mismatch(std::span<const Digest> leaves, uint64_t granule, uint64_t offset,
                                        Bytes granules) {
  for (uint64_t index = offset / granule; !granules.empty(); ++index) {
    const Bytes one = granules.first(std::min<uint64_t>(granule, granules.size()));
    if (index >= leaves.size() || leaf_digest(one) != leaves[index])
      return ByteRange{index * granule, index * granule + one.size()};
    granules = granules.subspan(one.size());
  }
  return std::nullopt;
}

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
