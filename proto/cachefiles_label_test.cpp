#include "proto/cachefiles_label.h"

#include <gtest/gtest.h>

namespace hydrant::proto {
namespace {

TEST(CachefilesLabel, AnObjectLabelIsBigEndianAndEndsInAux) {
  auto label = encode_object_label(0x0102030405060708, Content::kNoData, as_bytes("aux"));
  ASSERT_EQ(label.size(), 21u);
  EXPECT_EQ(label[0], std::byte(1));
  EXPECT_EQ(label[7], std::byte(8));
  EXPECT_EQ(label[16], std::byte(1));
  EXPECT_EQ(decode_object_label(label)->object_size, 0x0102030405060708u);
}

TEST(CachefilesLabel, TheFirstDifferenceWins) {
  auto label = encode_object_label(8192, Content::kNoData, as_bytes("aux"));
  EXPECT_EQ(check_object_label(label, 8192, as_bytes("aux")), Coherency::kOk);
  EXPECT_EQ(check_object_label(label, 4096, as_bytes("au")), Coherency::kLength);
  EXPECT_EQ(check_object_label(label, 4096, as_bytes("auy")), Coherency::kAux);
  EXPECT_EQ(check_object_label(label, 4096, as_bytes("aux")), Coherency::kSize);
  label[16] = std::byte(2);
  EXPECT_EQ(check_object_label(label, 4096, as_bytes("auy")), Coherency::kType);
  auto dirty = encode_object_label(8192, Content::kDirty, {});
  EXPECT_EQ(check_object_label(dirty, 8192, {}), Coherency::kDirty);
  EXPECT_EQ(check_object_label({}, 0, {}), Coherency::kLength);
}

TEST(CachefilesLabel, AVolumeLabelReservesFourZeroBytes) {
  auto label = encode_volume_label(as_bytes("co"));
  EXPECT_EQ(check_volume_label(label, as_bytes("co")), Coherency::kOk);
  EXPECT_EQ(check_volume_label(label, as_bytes("cu")), Coherency::kAux);
  EXPECT_EQ(check_volume_label(label, {}), Coherency::kLength);
  label[3] = std::byte(1);
  EXPECT_EQ(check_volume_label(label, as_bytes("co")), Coherency::kReserved);
}

TEST(CachefilesLabel, AShortLabelIsCorrupt) {
  auto label = encode_object_label(1, Content::kNoData, {});
  label.pop_back();
  EXPECT_EQ(decode_object_label(label).error().code, Code::kCorrupt);
}

}  // namespace
}  // namespace hydrant::proto
