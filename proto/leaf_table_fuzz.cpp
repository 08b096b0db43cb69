#include "base/check.h"
#include "proto/leaf_table.h"

// The root would stop every mutation, so it is made right before the second attempt.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace hydrant;
  Bytes input{reinterpret_cast<const std::byte*>(data), size};
  (void)proto::decode_leaf_table(input);
  if (size < proto::kLeafTableHeader) return 0;
  auto claimed = proto::decode_leaf_header(input.first(proto::kLeafTableHeader), size);
  if (!claimed) return 0;
  std::vector<Digest> leaves(claimed->shape.leaves());
  Cursor cursor(input.subspan(proto::kLeafTableHeader));
  for (Digest& leaf : leaves) std::ranges::copy(cursor.take_bytes(leaf.bytes.size()), leaf.bytes.begin());
  Buffer sealed = proto::encode_leaf_table(claimed->shape, proto::merkle_root(leaves, claimed->shape), leaves);
  auto table = proto::decode_leaf_table(sealed);
  HYDRANT_CHECK(table && table->leaves == leaves, "decoding and encoding must agree");
  return 0;
}
