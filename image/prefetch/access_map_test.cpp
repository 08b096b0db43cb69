#include "image/prefetch/access_map.h"

#include <gtest/gtest.h>

namespace hydrant::image {
namespace {

constexpr uint64_t kKiB = 1024;
const Digest kLayer = sha256(as_bytes("layer"));

FileEntry file(std::string path, uint64_t device_offset, uint64_t size) {
  FileEntry entry;
  entry.path = std::move(path);
  entry.size = size;
  entry.data = {{0, device_offset, size}};
  return entry;
}

proto::PrefetchEntry entry(std::string path, uint64_t offset, uint64_t length, uint32_t ms = 0, uint32_t hits = 1) {
  return {.layer = kLayer, .path = std::move(path), .offset = offset, .length = length, .ms = ms, .hits = hits};
}

const FileTable kFiles = {file("small", 0, 100), file("big", 4 * kKiB, 200 * kKiB),
                          file("next", 208 * kKiB, 10 * kKiB)};

TEST(AccessMapTest, WhatWasReadIsNamedByFile) {
  EXPECT_EQ(entries_of(kLayer, kFiles, {{{192 * kKiB, 256 * kKiB}, 7}, {{0, 64 * kKiB}, 9}}),
            (std::vector<proto::PrefetchEntry>{entry("big", 128 * kKiB, 72 * kKiB, 7), entry("next", 0, 10 * kKiB, 7),
                                               entry("small", 0, 100, 9), entry("big", 0, 64 * kKiB, 9)}));
}

TEST(AccessMapTest, EntriesAreFoundWhereTheFilesStand) {
  proto::PrefetchList list;
  list.entries = {entry("next", 0, 0, 5), entry("big", 64 * kKiB, 64 * kKiB, 2), entry("gone", 0, 0, 1)};
  list.entries.push_back({.layer = sha256(as_bytes("other")), .path = "big", .ms = 0});
  EXPECT_EQ(ranges_of(list, kLayer, kFiles),
            (std::vector<TimedRange>{{{68 * kKiB, 132 * kKiB}, 2}, {{208 * kKiB, 218 * kKiB}, 5}}));
}

TEST(AccessMapTest, ARangePastItsFileEndsWithIt) {
  proto::PrefetchList list;
  list.entries = {entry("next", 0, 64 * kKiB)};
  EXPECT_EQ(ranges_of(list, kLayer, kFiles), (std::vector<TimedRange>{{{208 * kKiB, 218 * kKiB}, 0}}));
}

TEST(AccessMapTest, RunsAddUpAndWhatFewReadIsForgotten) {
  proto::PrefetchList list;
  add_run(list, {entry("a", 0, 100, 10), entry("b", 0, 128 * kKiB, 20)});
  EXPECT_EQ(list.runs, 1u);
  EXPECT_EQ(list.entries, (std::vector<proto::PrefetchEntry>{entry("a", 0, 100, 10), entry("b", 0, 128 * kKiB, 20)}));
  add_run(list, {entry("b", 64 * kKiB, 64 * kKiB, 40)});
  EXPECT_EQ(list.entries, (std::vector<proto::PrefetchEntry>{entry("a", 0, 100, 10), entry("b", 0, 64 * kKiB, 20),
                                                             entry("b", 64 * kKiB, 64 * kKiB, 30, 2)}));
  add_run(list, {entry("b", 64 * kKiB, 64 * kKiB, 60)});
  EXPECT_EQ(list.entries, (std::vector<proto::PrefetchEntry>{entry("b", 64 * kKiB, 64 * kKiB, 40, 3)}));
}

TEST(AccessMapTest, APartReadTwiceInOneRunCountsOnce) {
  proto::PrefetchList list;
  add_run(list, {entry("a", 0, 100, 10), entry("a", 0, 100, 50)});
  EXPECT_EQ(list.entries, (std::vector<proto::PrefetchEntry>{entry("a", 0, 100, 10)}));
}

TEST(AccessMapTest, AListIsNeverLongerThanItsLimit) {
  proto::PrefetchList list;
  std::vector<proto::PrefetchEntry> run;
  for (uint32_t i = 0; i < 5; ++i) run.push_back(entry("f" + std::to_string(i), 0, 64 << 20, i));
  add_run(list, run);
  EXPECT_EQ(list.entries.size(), 4u);
  EXPECT_EQ(list.entries.back().path, "f3");
}

TEST(AccessMapTest, ATreesDataIsFoundByPath) {
  FileTable lower = {file("d/a", 0, 5000), file("d/b", 8192, 4096)}, upper = {file("d/b", 0, 100)};
  FileEntry link;
  link.path = "d/c";
  link.type = FileType::kHardLink;
  link.link_target = "d/a";
  lower.push_back(link);
  const FileTable* layers[] = {&lower, &upper};
  auto tree = merge(layers);
  ASSERT_TRUE(tree);
  TreeData all;
  ASSERT_TRUE(collect(*tree, "", all));
  EXPECT_EQ(all.files, 2u);
  EXPECT_EQ(all.bytes, 5100u);
  EXPECT_EQ(all.devices, (std::vector<std::vector<ByteRange>>{{{0, 5000}}, {{0, 100}}}));
  TreeData one;
  ASSERT_TRUE(collect(*tree, "d/c", one));
  EXPECT_EQ(one.devices, (std::vector<std::vector<ByteRange>>{{{0, 5000}}}));
  EXPECT_EQ(collect(*tree, "d/x", one).error().code, Code::kNotFound);
  EXPECT_EQ(collect(*tree, "d/b/x", one).error().code, Code::kNotFound);
}

}  // namespace
}  // namespace hydrant::image
