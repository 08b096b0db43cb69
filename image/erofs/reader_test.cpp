#include "image/erofs/reader.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "image/erofs/erofs_fixture.h"
#include "image/gzip/gzip_fixture.h"

namespace hydrant::image {
namespace {

using fixture::ErofsMaker;
namespace erofs = proto::erofs;
using testing::HasSubstr;

const FileEntry* find(const ErofsTable& table, std::string_view path, FileType type) {
  for (const auto& entry : table.files)
    if (entry.path == path && entry.type == type) return &entry;
  return nullptr;
}

std::string why(const Buffer& image, Code code) {
  auto table = fixture::read_erofs(image);
  if (table) return "it was read";
  EXPECT_EQ(table.error().code, code) << table.error().what;
  return table.error().what;
}

TEST(ErofsReader, FilesOfEveryLayoutHaveTheirPlacesInTheImage) {
  ErofsMaker maker;
  const Buffer data = fixture::noise(10'000), tail = fixture::noise(5'000);
  const uint32_t at = maker.block(fixture::noise(3 * 4096));
  const auto root = maker.directory({{"empty", maker.plain({})},
                                     {"holes", maker.chunked(5 * 4096 - 1, {at, at + 1, erofs::kNoBlock, at, at + 2})},
                                     {"inline", maker.inlined(tail)},
                                     {"plain", maker.plain(data)}});
  const Buffer image = maker.image(root);
  auto table = fixture::read_erofs(image);
  ASSERT_TRUE(table) << table.error().what;
  ASSERT_EQ(table->files.size(), 5U);
  EXPECT_EQ(table->files[0].path, "");

  auto content = [&](const FileEntry& entry) {
    Buffer out(entry.size);
    for (const auto& piece : entry.data)
      std::copy_n(image.begin() + ptrdiff_t(piece.device_offset), piece.length,
                  out.begin() + ptrdiff_t(piece.file_offset));
    return out;
  };
  EXPECT_EQ(content(*find(*table, "plain", FileType::kRegular)), data);
  EXPECT_EQ(content(*find(*table, "inline", FileType::kRegular)), tail);
  EXPECT_TRUE(find(*table, "empty", FileType::kRegular)->data.empty());
  const std::vector<DataPiece> pieces{
      {0, at * 4096ULL, 2 * 4096}, {3 * 4096, at * 4096ULL, 4096}, {4 * 4096, at * 4096ULL + 2 * 4096, 4095}};
  EXPECT_EQ(find(*table, "holes", FileType::kRegular)->data, pieces) << "neighbours are one piece, holes none";
}

TEST(ErofsReader, NamesComeInOrderWithTheirAttributes) {
  ErofsMaker maker;
  Buffer shared;
  append_le<uint8_t>(shared, 3), append_le<uint8_t>(shared, 1), append_le<uint16_t>(shared, 5);
  append(shared, as_bytes("allvalue"));
  maker.super.xattr_block = maker.block(shared);
  fixture::ErofsAttributes attributes;
  attributes.mode = 0104755;
  attributes.user = {{"one", "1"}};
  attributes.shared = {0};
  const auto file = maker.plain(as_bytes("x"), attributes);
  const auto sub = maker.directory({{"again", file}, {"disk", maker.node(060640, 0x00112345)}});
  const auto root =
      maker.directory({{"a", sub}, {"a-b", file}, {"fifo", maker.node(010600, 0)}, {"to", maker.link("a/../x")}});
  auto table = fixture::read_erofs(maker.image(root));
  ASSERT_TRUE(table) << table.error().what;
  std::vector<std::string> paths;
  for (const auto& entry : table->files) paths.push_back(entry.path);
  EXPECT_THAT(paths, testing::ElementsAre("", "a", "a/again", "a/disk", "a-b", "fifo", "to"));

  const FileEntry& first = *find(*table, "a/again", FileType::kRegular);
  EXPECT_EQ(first.mode, 04755);
  EXPECT_EQ(first.mtime, 1'700'000'000);
  EXPECT_THAT(first.xattrs, testing::ElementsAre(Xattr{"user.all", "value"}, Xattr{"user.one", "1"}));
  EXPECT_EQ(find(*table, "a-b", FileType::kHardLink)->link_target, "a/again");
  EXPECT_EQ(find(*table, "to", FileType::kSymlink)->link_target, "a/../x");
  const FileEntry& disk = *find(*table, "a/disk", FileType::kBlockDevice);
  EXPECT_EQ(disk.rdev_major, 0x123U);
  EXPECT_EQ(disk.rdev_minor, 0x145U);
}

TEST(ErofsReader, OverlayMarksBecomeWhatTheMergeTakes) {
  ErofsMaker maker;
  fixture::ErofsAttributes opaque, other;
  opaque.trusted = {{"overlay.opaque", "y"}, {"overlay.origin", "o"}, {"kept", "k"}};
  opaque.user = {{"overlay.opaque", "y"}};
  const auto gone = maker.node(020000, 0);
  const auto root = maker.directory({{"dir", maker.directory({{"gone", gone}}, opaque)}, {"gone", gone}});
  auto table = fixture::read_erofs(maker.image(root));
  ASSERT_TRUE(table) << table.error().what;
  EXPECT_TRUE(find(*table, "dir", FileType::kOpaque));
  EXPECT_THAT(find(*table, "dir", FileType::kDirectory)->xattrs, testing::ElementsAre(Xattr{"trusted.kept", "k"}));
  EXPECT_TRUE(find(*table, "dir/gone", FileType::kWhiteout));
  EXPECT_TRUE(find(*table, "gone", FileType::kWhiteout)) << "whiteouts of one inode are no hard links";

  other.trusted = {{"overlay.redirect", "/elsewhere"}};
  EXPECT_THAT(why(maker.image(maker.directory({{"moved", maker.directory({}, other)}})), Code::kUnsupported),
              HasSubstr("\"moved\""));
}

TEST(ErofsReader, WhatCannotBePartOfATreeIsNamed) {
  {
    ErofsMaker maker;
    const auto link = maker.link("there");
    Buffer image = maker.image(maker.directory({{"packed", link}}));
    image[4096 + link * 32] = std::byte{1 << 1 | 1};  // compressed
    EXPECT_THAT(why(image, Code::kUnsupported), HasSubstr("\"packed\": is compressed, and no regular file"));
  }
  {
    ErofsMaker maker;
    maker.super.feature_incompat |= erofs::kIncompatDeviceTable;
    maker.super.extra_devices = 2;
    EXPECT_THAT(why(maker.image(maker.directory({})), Code::kUnsupported), HasSubstr("2 more devices"));
  }
  {
    ErofsMaker maker;
    maker.super.block_bits = 9;
    EXPECT_THAT(why(maker.image(0), Code::kUnsupported), HasSubstr("512 bytes"));
  }
  {
    ErofsMaker maker;
    maker.super.feature_incompat |= 0x100;
    EXPECT_THAT(why(maker.image(maker.directory({})), Code::kUnsupported), HasSubstr("features"));
  }
}

TEST(ErofsReader, ContradictionsAreCorrupt) {
  {
    ErofsMaker maker;
    auto inner = maker.directory({});
    EXPECT_THAT(why(maker.image(maker.directory({{"one", inner}, {"two", inner}})), Code::kCorrupt),
                HasSubstr("\"two\": a directory has two names"));
  }
  {
    ErofsMaker maker;  // a directory in itself: the first one made has inode 0
    const auto root = maker.directory({{"loop", 0}});
    EXPECT_THAT(why(maker.image(root), Code::kCorrupt), HasSubstr("\"loop\""));
  }
  {
    ErofsMaker maker;
    const auto far = maker.chunked(4096, {0x00ffffff});
    EXPECT_THAT(why(maker.image(maker.directory({{"far", far}})), Code::kCorrupt), HasSubstr("\"far\": its data lies"));
  }
  {
    ErofsMaker maker;
    EXPECT_THAT(why(maker.image(maker.directory({{"away", 1ULL << 60}})), Code::kCorrupt), HasSubstr("\"away\""));
  }
  {
    ErofsMaker maker;  // one array of indexes, as large as the image, that many files claim
    std::map<std::string, uint64_t> files;
    for (int i = 0; i < 40; ++i) files[std::to_string(i)] = maker.chunked(4096ULL * 20'000, {});
    EXPECT_THAT(why(maker.image(maker.directory(files)), Code::kCorrupt), HasSubstr("more than it holds"));
  }
  {
    ErofsMaker maker;  // a whiteout of everything
    EXPECT_THAT(why(maker.image(maker.node(020000, 0)), Code::kCorrupt), HasSubstr("root"));
  }
  EXPECT_EQ(fixture::read_erofs(Buffer(4096)).error().code, Code::kCorrupt);
  EXPECT_EQ(fixture::read_erofs(Buffer(100)).error().code, Code::kCorrupt);
}

TEST(ErofsReader, EveryTruncationIsAnError) {
  ErofsMaker maker;
  const Buffer image =
      maker.image(maker.directory({{"file", maker.plain(fixture::noise(9000))}, {"l", maker.link("t")}}));
  ASSERT_TRUE(fixture::read_erofs(image));
  const size_t last = image.size() - erofs::kBlockSize;  // the directory, made last, and padding
  for (size_t size = 0; size <= last; size += 509) EXPECT_FALSE(fixture::read_erofs(Bytes(image).first(size))) << size;
}

}  // namespace
}  // namespace hydrant::image
