#include "cachefiles/content_map.h"

#include <gtest/gtest.h>

#include <random>
#include <set>

namespace hydrant::cachefiles {
namespace {

TEST(ContentMap, AFileOfTheNominalSizeCostsNothingUntilWritten) {
  ContentMap map;
  uint64_t end = (uint64_t{1} << 43) / 4096;
  EXPECT_EQ(map.next_present(0, end), end);
  EXPECT_EQ(map.next_absent(12345, end), 12345u);
  map.set_present(end - 1, end);
  EXPECT_EQ(map.next_present(0, end), end - 1);
  EXPECT_EQ(map.present_blocks(), 1u);
}

TEST(ContentMap, WhatWasUsedSinceTheLastTimeIsNotUnused) {
  ContentMap map;
  const uint64_t far = 5 * proto::kMapLeafBlocks;
  map.set_present(10, 200);
  map.set_present(far, far + 64);
  EXPECT_TRUE(map.take_unused(1000).empty()) << "all of it has just come";
  map.note_use(130, 131);
  map.note_use(700, 900);  // nothing is there
  auto unused = map.take_unused(1000);
  ASSERT_EQ(unused.size(), 3u);
  EXPECT_EQ(unused[0], (ByteRange{0, 128}));
  EXPECT_EQ(unused[1], (ByteRange{192, 256}));
  EXPECT_EQ(unused[2], (ByteRange{far, far + 64}));
  EXPECT_EQ(map.take_unused(1).size(), 1u) << "no more than are wanted, by portions";
}

TEST(ContentMap, AgreesWithASetOfBlocks) {
  constexpr uint64_t kEnd = 3 * proto::kMapLeafBlocks;
  std::mt19937 random(7);
  ContentMap map;
  std::set<uint64_t> model;
  for (int step = 0; step < 300; ++step) {
    uint64_t begin = random() % kEnd, end = std::min<uint64_t>(kEnd, begin + random() % 200);
    map.set_present(begin, end);
    for (uint64_t i = begin; i < end; ++i) model.insert(i);
    uint64_t from = random() % kEnd, to = std::min<uint64_t>(kEnd, from + random() % 9000);
    auto next = model.lower_bound(from);
    EXPECT_EQ(map.next_present(from, to), next == model.end() ? to : std::min(*next, to));
    uint64_t absent = from;
    while (absent < to && model.contains(absent)) ++absent;
    EXPECT_EQ(map.next_absent(from, to), absent);
    EXPECT_EQ(map.present_blocks(), model.size());
  }
  map.mark_durable(map.snapshot());
  EXPECT_EQ(map.durable_blocks(), model.size());
  map.clear(5000);
  EXPECT_EQ(map.next_present(5000, kEnd), kEnd);
}

TEST(ContentMap, WhatIsNotDurableCanBeForgotten) {
  ContentMap map;
  map.set_present(0, 10);
  map.mark_durable(map.snapshot());
  map.set_present(10, 20);
  map.forget_volatile();
  EXPECT_EQ(map.next_absent(0, 20), 10u);
  EXPECT_TRUE(map.all_durable(0, 10));
  EXPECT_FALSE(map.all_durable(0, 11));
}

}  // namespace
}  // namespace hydrant::cachefiles
