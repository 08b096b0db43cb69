// Leaf digests of a device and the root that binds them. Domain prefixes: 0 leaf, 1 inner node, 2 root.
#pragma once

#include <algorithm>
#include <optional>
#include <span>

#include "base/byte_range.h"
#include "base/bytes.h"
#include "base/digest.h"

namespace hydrant::proto {

struct MerkleShape {
  uint64_t device_size = 0;
  uint32_t granule = 0;  // a leaf's bytes; the last one of a device may be short
  uint32_t layout_version = 0;

  uint64_t leaves() const { return device_size / granule + (device_size % granule != 0); }
  // Of the device's bytes.
  ByteRange granule_range(uint64_t leaf) const { return {leaf * granule, std::min(device_size, (leaf + 1) * granule)}; }
  bool operator==(const MerkleShape&) const = default;
};

// What the bytes of a device must hash to.
struct MerkleProof {
  MerkleShape shape;
  Digest root;
  bool operator==(const MerkleProof&) const = default;
};

// SHA-256(0x00 || granule).
Digest leaf_digest(Bytes granule);

// The first of the whole granules at `offset` that does not match its leaf; nothing when all do. `leaves` are those of
// the whole device, whose last granule may be short; `offset` is aligned to a granule.
std::optional<ByteRange> first_mismatch(std::span<const Digest> leaves, uint64_t granule, uint64_t offset,
                                        Bytes granules);

// Inner nodes are SHA-256(0x01 || left || right), an odd node moves up unchanged, and the root binds the top node
// (zeros when there are no leaves) to the hash algorithm and the shape.
Digest merkle_root(std::span<const Digest> leaves, const MerkleShape& shape);

}  // namespace hydrant::proto
