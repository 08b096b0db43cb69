#include "proto/erofs_layout.h"

#include <algorithm>

namespace hydrant::proto::erofs {

namespace {

// 64-bit block addresses: the root's nid stands elsewhere then.
constexpr uint32_t kIncompatWideBlocks = 0x80;

}  // namespace

uint32_t checksum(Bytes bytes) {
  constexpr uint32_t kPolynomial = 0x82F63B78;  // Castagnoli, reflected
  uint32_t crc = 0xFFFFFFFF;
  for (std::byte byte : bytes) {
    crc ^= std::to_integer<uint32_t>(byte);
    for (int bit = 0; bit < 8; ++bit) crc = crc >> 1 ^ (crc & 1 ? kPolynomial : 0);
  }
  return crc;
}

Result<Outline> decode_outline(Bytes bytes, uint64_t size) {
  Superblock super;
  if (bytes.size() < sizeof super || size < kSuperblockAt + sizeof super)
    return fail(Code::kCorrupt, "not an EROFS image: too short");
  std::memcpy(&super, bytes.data(), sizeof super);
  if (super.magic != kMagic) return fail(Code::kCorrupt, "not an EROFS image: no superblock");
  if (super.block_bits < 9 || super.block_bits > 16)
    return fail(Code::kCorrupt, "EROFS superblock: impossible block size");

  Outline outline{.block_size = uint64_t{1} << super.block_bits, .root = {}, .device_table = {}};
  uint64_t root = uint64_t{super.meta_block} * outline.block_size + super.root_nid * kInodeSlot;
  if (!(super.feature_incompat & kIncompatWideBlocks)) {
    if (root >= size) return fail(Code::kCorrupt, "EROFS superblock: the root directory is outside of the image");
    outline.root = {root, std::min(size, root + sizeof(ExtendedInode))};
  }
  if (super.feature_incompat & kIncompatDeviceTable && super.extra_devices > 0) {
    uint64_t table = uint64_t{super.device_table_slot} * sizeof(DeviceSlot);
    outline.device_table = {table, table + super.extra_devices * sizeof(DeviceSlot)};
    if (table < kSuperblockAt + sizeof super || outline.device_table.end > size)
      return fail(Code::kCorrupt, "EROFS superblock: the device table is outside of the image");
  }
  return outline;
}

Result<std::vector<std::string>> decode_device_tags(Bytes table) {
  std::vector<std::string> tags;
  for (; table.size() >= sizeof(DeviceSlot); table = table.subspan(sizeof(DeviceSlot))) {
    std::string_view tag = as_text(table.first(sizeof(DeviceSlot::tag)));
    tags.emplace_back(tag.substr(0, tag.find('\0')));
    if (tags.back().empty())
      return fail(Code::kCorrupt, "the image does not name its device " + std::to_string(tags.size()));
  }
  return tags;
}

}  // namespace hydrant::proto::erofs
