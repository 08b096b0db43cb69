#include "proto/handover.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "base/file.h"

namespace hydrant::proto {
namespace {

Handover sample() {
  return {.blobs = {{.node = 2,
                     .generation = 7,
                     .size = 5'000'000,
                     .lookups = 2,
                     .opens = 1,
                     .named = true,
                     .name = "aa.1",
                     .volume = "erofs,hydrant",
                     .id = "aa"},
                    {.node = 4,
                     .generation = 9,
                     .size = uint64_t{1} << 43,
                     .lookups = 1,
                     .opens = 1,
                     .named = false,
                     .name = std::string(255, 'n'),
                     .volume = std::string(255, 'v'),
                     .id = std::string(255, 'i')}}};
}

TEST(Handover, RoundTrips) {
  EXPECT_EQ(decode_handover(encode_handover(sample())).value(), sample());
  EXPECT_EQ(decode_handover(encode_handover({})).value(), Handover{});
}

// The golden file of docs/formats/handover.md: a change of the format needs a new version and a decoder for the old
// one.
TEST(Handover, TheFormatDoesNotDrift) {
  auto golden = read_file(HYDRANT_TESTDATA "/handover-v1.bin");
  ASSERT_TRUE(golden) << golden.error().what;
  const Bytes bytes = as_bytes(*golden);
  EXPECT_EQ(decode_handover(bytes).value(), sample());
  EXPECT_TRUE(std::ranges::equal(encode_handover(sample()), bytes));
}

TEST(Handover, ASlotThatIsNotMarkedYetIsNotThere) {
  auto bytes = encode_handover(sample());
  store_le<uint64_t>(bytes.data() + handover_slot(4) + kHandoverUsed, 0);
  auto found = decode_handover(bytes).value();
  ASSERT_EQ(found.blobs.size(), 1u);
  EXPECT_EQ(found.blobs[0], sample().blobs[0]);
}

TEST(Handover, OfALaterVersionIsUnsupported) {
  auto bytes = encode_handover(sample());
  store_le<uint32_t>(bytes.data() + 8, kHandoverVersion + 1);
  EXPECT_EQ(decode_handover(bytes).error().code, Code::kUnsupported);
}

TEST(Handover, TornOrInconsistentIsCorrupt) {
  const auto good = encode_handover(sample());
  for (size_t size : {size_t{0}, size_t{7}, kHandoverHeader - 1, kHandoverHeader, good.size() - 1})
    EXPECT_EQ(decode_handover(Bytes(good).first(size)).error().code, Code::kCorrupt) << size;
  auto with = [&](size_t at, uint8_t value) {
    auto bad = good;
    bad[at] = std::byte(value);
    return decode_handover(bad);
  };
  EXPECT_EQ(with(0, 'H').error().code, Code::kCorrupt);
  EXPECT_EQ(with(12, 1).error().code, Code::kCorrupt) << "slot size";
  EXPECT_EQ(with(kHandoverHighWater + 7, 0x80).error().code, Code::kCorrupt);
  EXPECT_EQ(with(handover_slot(2) + kHandoverUsed, 2).error().code, Code::kCorrupt);
  EXPECT_EQ(with(handover_slot(2) + kHandoverNamed, 2).error().code, Code::kCorrupt);
  EXPECT_EQ(with(handover_slot(2) + 44, 0).error().code, Code::kCorrupt) << "no name";
  EXPECT_EQ(with(handover_slot(2) + 44, 200).error().code, Code::kCorrupt) << "zeros in the name";
}

}  // namespace
}  // namespace hydrant::proto
