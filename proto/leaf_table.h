// The leaf digests of one device as a file (docs/formats/leaf-table.md): what fetchd leaves for hydrantd, and what the
// engine keeps beside a content map. The root proves all of it, so nobody need trust whoever wrote it.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "base/digest.h"
#include "base/error.h"
#include "proto/merkle.h"

namespace hydrant::proto {

inline constexpr uint32_t kLeafTableVersion = 1;
inline constexpr size_t kLeafTableHeader = 64;  // bytes; the leaves follow, 32 each
inline constexpr uint32_t kSmallestGranule = 4096;
inline constexpr uint32_t kLargestGranule = 4 << 20;
inline constexpr uint64_t kMostLeaves = uint64_t{1} << 22;

// A granule is a power of two, and there are no more leaves than kMostLeaves. `kInvalid`.
Result<> check_shape(const MerkleShape& shape);

// Where fetchd leaves the table for hydrantd, below the root directory of both.
std::string leaf_table_name(const Digest& root);

// Bytes of a table for that shape.
size_t leaf_table_size(const MerkleShape& shape);

Buffer encode_leaf_table(const MerkleShape& shape, const Digest& root, std::span<const Digest> leaves);

// What the header claims; the leaves may be anything. `file_size` is that of the whole table. kCorrupt, kUnsupported.
Result<MerkleProof> decode_leaf_header(Bytes header, uint64_t file_size);

struct LeafTable {
  MerkleProof proof;
  std::vector<Digest> leaves;
};
// kCorrupt unless the leaves give the root that the header names.
Result<LeafTable> decode_leaf_table(Bytes bytes);

}  // namespace hydrant::proto
