#include "proto/erofs_layout.h"

#include <gtest/gtest.h>

namespace hydrant::proto::erofs {
namespace {

constexpr uint64_t kSize = 64 << 10;

Result<Outline> outline_of(const Superblock& super, uint64_t size = kSize) {
  Buffer bytes(sizeof super);
  store(bytes, 0, super);
  return decode_outline(bytes, size);
}

Superblock with_devices(uint16_t count, uint16_t slot) {
  Superblock super;
  super.feature_incompat |= kIncompatDeviceTable;
  super.extra_devices = count;
  super.device_table_slot = slot;
  return super;
}

TEST(ErofsOutline, TellsWhereRootAndDevicesAre) {
  Superblock super = with_devices(3, 9);
  super.meta_block = 2;
  super.root_nid = 5;
  auto outline = outline_of(super);
  ASSERT_TRUE(outline) << outline.error().what;
  EXPECT_EQ(outline->root, (ByteRange{2 * 4096 + 5 * 32, 2 * 4096 + 5 * 32 + 64}));
  EXPECT_EQ(outline->device_table, (ByteRange{9 * 128, 12 * 128}));
  EXPECT_EQ(outline->devices(), 3u);
}

TEST(ErofsOutline, ACountWithoutTheFeatureIsNoDevice) {
  Superblock super = with_devices(3, 9);
  super.feature_incompat = 0;
  auto outline = outline_of(super);
  ASSERT_TRUE(outline) << outline.error().what;
  EXPECT_EQ(outline->devices(), 0u);
}

TEST(ErofsOutline, LeavesTheRootToTheKernelWhereBlocksAreWide) {
  Superblock super;
  super.feature_incompat |= 0x80;
  super.meta_block = ~0u;
  auto outline = outline_of(super);
  ASSERT_TRUE(outline) << outline.error().what;
  EXPECT_TRUE(outline->root.empty());
}

TEST(ErofsOutline, RefusesWhatPointsOutOfTheImage) {
  EXPECT_TRUE(outline_of(with_devices(1, kSize / 128 - 1)));
  EXPECT_FALSE(outline_of(with_devices(2, kSize / 128 - 1)));
  EXPECT_FALSE(outline_of(with_devices(65535, 65535)));
  EXPECT_FALSE(outline_of(with_devices(1, 8))) << "the superblock itself";
  Superblock far;
  far.meta_block = kSize / 4096;
  EXPECT_FALSE(outline_of(far));
}

TEST(ErofsOutline, RefusesWhatIsNotErofs) {
  Superblock other;
  other.magic ^= 1;
  EXPECT_EQ(outline_of(other).error().code, Code::kCorrupt);
  Superblock blocks;
  blocks.block_bits = 8;
  EXPECT_FALSE(outline_of(blocks));
  blocks.block_bits = 255;
  EXPECT_FALSE(outline_of(blocks));
  EXPECT_FALSE(outline_of({}, 1151));
  EXPECT_FALSE(decode_outline({}, kSize));
}

TEST(ErofsDeviceTags, AreReadToTheirNulOrTheirEnd) {
  Buffer table(2 * sizeof(DeviceSlot));
  DeviceSlot slot;
  slot.tag.fill('a');
  store(table, 0, slot);
  slot.tag[2] = 0;
  store(table, sizeof slot, slot);
  auto tags = decode_device_tags(table);
  ASSERT_TRUE(tags);
  EXPECT_EQ(*tags, (std::vector<std::string>{std::string(64, 'a'), "aa"}));
}

TEST(ErofsDeviceTags, AnEmptyOneIsRefused) {
  Buffer table(sizeof(DeviceSlot));
  EXPECT_EQ(decode_device_tags(table).error().code, Code::kCorrupt);
}

}  // namespace
}  // namespace hydrant::proto::erofs
