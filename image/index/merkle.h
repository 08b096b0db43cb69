// Leaf digests of a device and the root that binds them. Domain prefixes: 0 leaf, 1 inner node, 2 root.
#pragma once

#include <vector>

#include "base/bytes.h"
#include "base/digest.h"

namespace hydrant::image {

// SHA-256(0x00 || granule). The last granule of a device may be short.
Digest leaf_digest(Bytes granule);

struct MerkleShape {
  uint64_t device_size = 0;
  uint32_t granule = 0;
  uint32_t layout_version = 0;
};

// Inner nodes are SHA-256(0x01 || left || right), an odd node moves up unchanged, and the root binds the top node
// (zeros when there are no leaves) to the hash algorithm and the shape.
Digest merkle_root(const std::vector<Digest>& leaves, const MerkleShape& shape);

}  // namespace hydrant::image
