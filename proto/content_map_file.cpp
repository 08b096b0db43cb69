#include "proto/content_map_file.h"

#include <algorithm>

#include "base/digest.h"

namespace hydrant::proto {
namespace {

constexpr std::string_view kMagic = "hydrmap\n";
constexpr size_t kHeaderSize = 72;
constexpr size_t kLeafSize = 8 + kMapLeafWords * 8;
constexpr size_t kDigestSize = 32;

}  // namespace

size_t content_map_file_size(size_t leaves) { return kHeaderSize + leaves * kLeafSize + kDigestSize; }

Buffer encode_content_map(const ContentMapFile& map) {
  Buffer out;
  out.reserve(content_map_file_size(map.leaves.size()));
  append(out, as_bytes(kMagic));
  append_le(out, kContentMapVersion);
  append_le(out, static_cast<uint32_t>(kMapBlockSize));
  append_le(out, map.generation);
  append_le(out, map.inode);
  append_le(out, map.object_size);
  append_le(out, map.file_size);
  append(out, map.identity);
  append_le(out, static_cast<uint64_t>(map.leaves.size()));
  for (const auto& leaf : map.leaves) {
    append_le(out, leaf.index);
    append(out, std::as_bytes(std::span(leaf.bits)));
  }
  Digest digest = sha256(out);
  append(out, digest.bytes);
  return out;
}

Result<ContentMapFile> decode_content_map(Bytes bytes) {
  if (bytes.size() < kHeaderSize + kDigestSize) return fail(Code::kCorrupt, "content map: too short");
  Cursor cursor(bytes.first(bytes.size() - kDigestSize));
  if (as_text(cursor.take_bytes(kMagic.size())) != kMagic) return fail(Code::kCorrupt, "content map: wrong magic");
  auto version = cursor.take<uint32_t>();
  if (version != kContentMapVersion) return fail(Code::kUnsupported, "content map: version " + std::to_string(version));
  Bytes body = bytes.first(bytes.size() - kDigestSize), stored = bytes.last(kDigestSize);
  Digest digest = sha256(body);
  if (!std::equal(stored.begin(), stored.end(), digest.bytes.begin()))
    return fail(Code::kCorrupt, "content map: wrong checksum");
  if (cursor.take<uint32_t>() != kMapBlockSize) return fail(Code::kCorrupt, "content map: wrong block size");
  ContentMapFile out;
  out.generation = cursor.take<uint64_t>();
  out.inode = cursor.take<uint64_t>();
  out.object_size = cursor.take<uint64_t>();
  out.file_size = cursor.take<uint64_t>();
  std::ranges::copy(cursor.take_bytes(out.identity.size()), out.identity.begin());
  auto leaves = cursor.take<uint64_t>();
  if (leaves > kMapLeafLimit || cursor.rest().size() != leaves * kLeafSize)
    return fail(Code::kCorrupt, "content map: wrong length");
  out.leaves.resize(leaves);
  for (size_t i = 0; i < leaves; ++i) {
    auto& leaf = out.leaves[i];
    leaf.index = cursor.take<uint64_t>();
    std::memcpy(leaf.bits.data(), cursor.take_bytes(sizeof leaf.bits).data(), sizeof leaf.bits);
    if (leaf.index >= kMapLeafLimit || (i > 0 && leaf.index <= out.leaves[i - 1].index))
      return fail(Code::kCorrupt, "content map: leaves out of order");
  }
  return out;
}

}  // namespace hydrant::proto
