#include "image/index/erofs_rows.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace hydrant::image {
namespace {

using testing::ElementsAre;

FileEntry file(std::string path, std::vector<DataPiece> data) {
  FileEntry entry;
  entry.path = std::move(path);
  entry.data = std::move(data);
  return entry;
}

TEST(ErofsRows, EachStretchHasBlocksOfItsOwnInTheImagesOrder) {
  ErofsTable table;
  table.files = {file("late", {{0, 90'112, 5000}}), file("tail", {{0, 100, 50}}), file("early", {{8192, 8192, 4096}})};
  auto rows = place_erofs(table);
  ASSERT_TRUE(rows);
  EXPECT_THAT(*rows, ElementsAre(LayoutRow{0, 100, 50}, LayoutRow{4096, 8192, 4096}, LayoutRow{8192, 90'112, 5000}));
  EXPECT_THAT(table.files[0].data, ElementsAre(DataPiece{0, 8192, 5000}));
  EXPECT_THAT(table.files[1].data, ElementsAre(DataPiece{0, 0, 50}));
  EXPECT_THAT(table.files[2].data, ElementsAre(DataPiece{8192, 4096, 4096}));
}

TEST(ErofsRows, FilesThatShareBlocksShareRows) {
  ErofsTable table;
  table.files = {file("all", {{0, 0, 3 * 4096}}), file("middle", {{0, 4096, 4096}}), file("again", {{0, 0, 3 * 4096}})};
  auto rows = place_erofs(table);
  ASSERT_TRUE(rows);
  EXPECT_THAT(*rows, ElementsAre(LayoutRow{0, 0, 4096}, LayoutRow{4096, 4096, 4096}, LayoutRow{8192, 8192, 4096}));
  EXPECT_EQ(table.files[0].data.size(), 3U);
  EXPECT_EQ(table.files[0].data, table.files[2].data);
  EXPECT_THAT(table.files[1].data, ElementsAre(DataPiece{0, 4096, 4096}));
  EXPECT_EQ(table.pieces, 7U);
}

TEST(ErofsRows, APartOfABlockIsNotShared) {
  ErofsTable table;
  table.files = {file("long", {{0, 0, 8192}}), file("short", {{0, 4096, 100}})};
  auto rows = place_erofs(table);
  ASSERT_FALSE(rows);
  EXPECT_EQ(rows.error().code, Code::kUnsupported);
  EXPECT_THAT(rows.error().what, testing::HasSubstr("\"long\""));
}

}  // namespace
}  // namespace hydrant::image
