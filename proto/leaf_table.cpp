#include "proto/leaf_table.h"

#include <algorithm>
#include <bit>

namespace hydrant::proto {
namespace {

constexpr std::string_view kMagic = "hydrleaf";

}  // namespace

Result<> check_shape(const MerkleShape& shape) {
  if (!std::has_single_bit(shape.granule) || shape.granule < kSmallestGranule || shape.granule > kLargestGranule)
    return fail(Code::kInvalid, "a granule of " + std::to_string(shape.granule) + " bytes");
  if (shape.device_size > kMostLeaves * shape.granule)
    return fail(Code::kInvalid, "more than " + std::to_string(kMostLeaves) + " leaves");
  return {};
}

std::string leaf_table_name(const Digest& root) {
  const std::string hex = root.hex();
  return "fetch/leaves/" + hex.substr(0, 2) + "/" + hex.substr(2);
}

size_t leaf_table_size(const MerkleShape& shape) { return kLeafTableHeader + shape.leaves() * sizeof(Digest); }

Buffer encode_leaf_table(const MerkleShape& shape, const Digest& root, std::span<const Digest> leaves) {
  Buffer out;
  out.reserve(leaf_table_size(shape));
  append(out, as_bytes(kMagic));
  append_le(out, kLeafTableVersion);
  append_le(out, shape.granule);
  append_le(out, shape.device_size);
  append_le(out, shape.layout_version);
  append_le(out, uint32_t{0});
  append(out, root.bytes);
  for (const Digest& leaf : leaves) append(out, leaf.bytes);
  return out;
}

Result<MerkleProof> decode_leaf_header(Bytes header, uint64_t file_size) {
  Cursor cursor(header);
  if (as_text(cursor.take_bytes(kMagic.size())) != kMagic) return fail(Code::kCorrupt, "leaf table: wrong magic");
  auto version = cursor.take<uint32_t>();
  if (version != kLeafTableVersion) return fail(Code::kUnsupported, "leaf table: version " + std::to_string(version));
  MerkleProof proof;
  proof.shape.granule = cursor.take<uint32_t>();
  proof.shape.device_size = cursor.take<uint64_t>();
  proof.shape.layout_version = cursor.take<uint32_t>();
  if (cursor.take<uint32_t>() != 0) return fail(Code::kCorrupt, "leaf table: unknown flags");
  Bytes root = cursor.take_bytes(proof.root.bytes.size());
  if (!cursor.ok()) return fail(Code::kCorrupt, "leaf table: too short");
  std::ranges::copy(root, proof.root.bytes.begin());
  if (auto sound = check_shape(proof.shape); !sound) return fail(Code::kCorrupt, "leaf table: " + sound.error().what);
  if (file_size != leaf_table_size(proof.shape)) return fail(Code::kCorrupt, "leaf table: wrong length");
  return proof;
}

Result<LeafTable> decode_leaf_table(Bytes bytes) {
  LeafTable table;
  HYDRANT_TRY(table.proof, decode_leaf_header(bytes.first(std::min(bytes.size(), kLeafTableHeader)), bytes.size()));
  table.leaves.resize(table.proof.shape.leaves());
  Cursor cursor(bytes.subspan(kLeafTableHeader));
  for (Digest& leaf : table.leaves) std::ranges::copy(cursor.take_bytes(leaf.bytes.size()), leaf.bytes.begin());
  if (merkle_root(table.leaves, table.proof.shape) != table.proof.root)
    return fail(Code::kCorrupt, "leaf table: its leaves do not give its root");
  return table;
}

}  // namespace hydrant::proto
