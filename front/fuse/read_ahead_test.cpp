#include "front/fuse/read_ahead.h"

#include <gtest/gtest.h>

namespace hydrant::front {
namespace {

constexpr uint64_t kPiece = 128 << 10, kSize = 64 << 20;

ByteRange piece(uint64_t number) { return {number * kPiece, (number + 1) * kPiece}; }

TEST(ReadAheadTest, AStreamIsRunAheadOfWithoutGapsAndSeldomTold) {
  ReadAhead ahead;
  uint64_t edge = 0;
  int told = 0;
  for (uint64_t i = 0; i < kSize / kPiece; ++i) {
    ByteRange hint = ahead.next(piece(i), kSize);
    if (piece(i).end > ReadAhead::kRun + kPiece) {
      EXPECT_GE(std::max(edge, hint.end), std::min(kSize, piece(i).end + ReadAhead::kReach / 2)) << i;
    }
    if (hint.empty()) continue;
    if (edge > 0) {
      EXPECT_EQ(hint.begin, edge);
    }
    edge = hint.end;
    ++told;
  }
  EXPECT_EQ(edge, kSize);
  EXPECT_LE(told, int(kSize / (ReadAhead::kReach / 2)) + 1);
}

TEST(ReadAheadTest, NeighboursThatAreSwappedAreAStreamStill) {
  ReadAhead ahead;
  uint64_t edge = 0;
  for (uint64_t i = 0; i < 64; ++i) {
    ByteRange hint = ahead.next(piece(i ^ 1), kSize);
    if (!hint.empty()) edge = hint.end;
  }
  EXPECT_GE(edge, 64 * kPiece + ReadAhead::kReach / 2);
}

TEST(ReadAheadTest, RandomReadsAreLeftAlone) {
  ReadAhead ahead;
  for (uint64_t i = 0; i < 1000; ++i) EXPECT_TRUE(ahead.next(piece(i * 7919 % 509), kSize).empty()) << i;
}

TEST(ReadAheadTest, NothingIsReadPastTheEnd) {
  ReadAhead ahead;
  for (uint64_t i = 0; i < 16; ++i) EXPECT_LE(ahead.next(piece(i), 16 * kPiece).end, 16 * kPiece);
}

}  // namespace
}  // namespace hydrant::front
