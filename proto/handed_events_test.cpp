#include "proto/handed_events.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "base/file.h"

namespace hydrant::proto {
namespace {

const std::vector<HandedEvent> kEvents = {{.number = 3, .device = 0x801, .inode = 12, .range = {4096, 8192}},
                                          {.number = 700, .device = 0x801, .inode = 13, .range = {0, UINT64_MAX}}};

TEST(HandedEvents, WhatIsWrittenIsRead) {
  auto read = decode_handed_events(encode_handed_events(kEvents));
  ASSERT_TRUE(read) << read.error().what;
  EXPECT_EQ(*read, kEvents);
}

// The golden file of docs/formats/handover.md: a change of the format needs a new version and a decoder for the old
// one.
TEST(HandedEvents, TheFormatDoesNotDrift) {
  const std::vector<HandedEvent> events = {
      {.number = 3, .device = 0x801, .inode = 12, .range = {4096, 8192}},
      {.number = 5, .device = 0xfd00000001, .inode = 13, .range = {0, UINT64_MAX}}};
  auto golden = read_file(HYDRANT_TESTDATA "/handed-events-v1.bin");
  ASSERT_TRUE(golden) << golden.error().what;
  const Bytes bytes = as_bytes(*golden);
  EXPECT_EQ(decode_handed_events(bytes).value(), events);
  EXPECT_TRUE(std::ranges::equal(encode_handed_events(events), bytes));
}

TEST(HandedEvents, ASlotIsFreeUntilItIsMarked) {
  Buffer bytes = encode_handed_events(kEvents);
  store_le<uint64_t>(bytes.data() + handed_event_slot(3) + kHandedEventUsed, 0);
  auto read = decode_handed_events(bytes);
  ASSERT_TRUE(read);
  EXPECT_EQ(*read, std::vector<HandedEvent>{kEvents[1]});
}

TEST(HandedEvents, WhatIsNoRecordIsRefused) {
  const Buffer good = encode_handed_events(kEvents);
  EXPECT_FALSE(decode_handed_events(Bytes(good).first(100)));
  EXPECT_FALSE(decode_handed_events(Bytes(good).first(good.size() - 1)));
  auto with = [&](size_t at, uint64_t value) {
    Buffer bytes = good;
    store_le<uint64_t>(bytes.data() + at, value);
    return decode_handed_events(bytes);
  };
  EXPECT_FALSE(with(0, 0));
  EXPECT_FALSE(with(kHandedEventsHighWater, kHandedEventsSlots + 1));
  EXPECT_FALSE(with(handed_event_slot(3) + kHandedEventUsed, 2));
  EXPECT_FALSE(with(handed_event_slot(3) + 32, 4095)) << "an end before its begin";
  Buffer bytes = good;
  store_le<uint32_t>(bytes.data() + 8, 2);
  EXPECT_EQ(decode_handed_events(bytes).error().code, Code::kUnsupported);
}

}  // namespace
}  // namespace hydrant::proto
