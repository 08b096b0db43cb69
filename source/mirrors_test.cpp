#include "source/mirrors.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "source/fake.h"

namespace hydrant::source {
namespace {

using namespace std::chrono_literals;
using ::testing::ElementsAre;
using ::testing::IsEmpty;
using Kind = FakeAnswer::Kind;

Deadline soon() { return Deadline::after(20s); }

TEST(Health, AFailureCostsAPauseThatGrowsAndOneCallerTriesAgain) {
  ManualClock clock;
  Health health(clock);
  EXPECT_TRUE(health.worth_asking());
  health.failed();
  EXPECT_FALSE(health.worth_asking());
  clock.advance(1s);
  EXPECT_TRUE(health.worth_asking());
  EXPECT_FALSE(health.worth_asking()) << "somebody is trying";
  health.failed();
  clock.advance(1900ms);
  EXPECT_FALSE(health.worth_asking());
  clock.advance(100ms);
  EXPECT_TRUE(health.worth_asking());
  health.succeeded();
  EXPECT_TRUE(health.worth_asking());
  for (int i = 0; i < 40; ++i) health.failed();
  clock.advance(61s);
  EXPECT_TRUE(health.worth_asking()) << "no pause is longer than a minute";
}

class MirroredBlobTest : public ::testing::Test {
 protected:
  MirroredBlobTest() {
    for (size_t i = 0; i < content_.size(); ++i) content_[i] = static_cast<std::byte>(i * 7);
    first_ = std::make_shared<FakeBlob>(content_, "first");
    last_ = std::make_shared<FakeBlob>(content_, "last");
    blob_ = std::make_unique<MirroredBlob>(
        std::vector<Mirror>{{first_, place_}, {last_, std::make_shared<Health>(clock_)}}, sha256(content_));
  }
  Result<Buffer> read(ByteRange range) { return read_all(*blob_, {.range = range, .deadline = soon(), .stop = {}}); }
  Buffer part(ByteRange range) const {
    return Buffer(content_.begin() + ptrdiff_t(range.begin), content_.begin() + ptrdiff_t(range.end));
  }

  ManualClock clock_;
  Buffer content_ = Buffer(100'000);
  std::shared_ptr<FakeBlob> first_, last_;
  std::shared_ptr<Health> place_ = std::make_shared<Health>(clock_);
  std::unique_ptr<MirroredBlob> blob_;
};

TEST_F(MirroredBlobTest, ThePreferredPlaceIsAskedAlone) {
  EXPECT_EQ(read({10, 5000}).value(), part({10, 5000}));
  EXPECT_THAT(last_->reads(), IsEmpty());
  EXPECT_EQ(blob_->describe(), "last");
  EXPECT_EQ(blob_->size(), content_.size());
}

TEST_F(MirroredBlobTest, AReadGoesOnWhereTheFirstPlaceBroke) {
  first_->answer({.kind = Kind::kFail, .after = 3000, .error = {.code = Code::kUnreachable, .what = "gone"}});
  EXPECT_EQ(read({1000, 9000}).value(), part({1000, 9000}));
  EXPECT_THAT(last_->reads(), ElementsAre(ByteRange{4000, 9000}));
}

TEST_F(MirroredBlobTest, APlaceThatFailedIsPassedOverAndComesBack) {
  first_->answer({.kind = Kind::kFail, .error = {.code = Code::kUnreachable, .what = "gone"}});
  ASSERT_TRUE(read({0, 10}));
  ASSERT_TRUE(read({10, 20}));
  EXPECT_THAT(first_->reads(), ElementsAre(ByteRange{0, 10}));
  clock_.advance(1s);
  ASSERT_TRUE(read({20, 30}));
  ASSERT_TRUE(read({30, 40}));
  EXPECT_THAT(first_->reads(), ElementsAre(ByteRange{0, 10}, ByteRange{20, 30}, ByteRange{30, 40}));
}

TEST_F(MirroredBlobTest, APlaceThatLacksAnObjectIsWellForOthers) {
  first_->answer({.kind = Kind::kFail, .error = {.code = Code::kNotFound, .what = "404"}});
  ASSERT_TRUE(read({0, 10}));
  EXPECT_TRUE(place_->worth_asking());
  first_->answer({.kind = Kind::kFail, .error = {.code = Code::kIo, .what = "500"}});
  EXPECT_TRUE(read({0, 10})) << "asked the last one at once";
  EXPECT_EQ(first_->reads().size(), 1u);
}

TEST_F(MirroredBlobTest, APlaceThatStallsLeavesHalfOfTheTimeToTheNext) {
  first_->answer({.kind = Kind::kStall, .after = 100});
  auto got = read_all(*blob_, {.range = {0, 500}, .deadline = Deadline::after(4s), .stop = {}});
  EXPECT_EQ(got.value(), part({0, 500}));
}

TEST_F(MirroredBlobTest, BytesThatAreFoundCorruptAreReadElsewhereNextTime) {
  first_->answer({.kind = Kind::kFlipBit});
  auto judge = [&](Bytes piece) -> Result<> {
    if (piece[0] != content_[0]) return fail(Code::kCorrupt, "wrong digest");
    return {};
  };
  EXPECT_EQ(blob_->read({.range = {0, 10}, .deadline = soon(), .stop = {}}, judge).error().code, Code::kCorrupt);
  EXPECT_THAT(last_->reads(), IsEmpty()) << "what the sink has taken cannot be taken back";
  EXPECT_TRUE(blob_->read({.range = {0, 10}, .deadline = soon(), .stop = {}}, judge));
  EXPECT_EQ(last_->reads().size(), 1u);
}

TEST_F(MirroredBlobTest, AWholeObjectThatIsNotItsDigestIsReadElsewhereNextTime) {
  first_->answer({.kind = Kind::kFlipBit});
  auto wrong = read({0, content_.size()}).error();
  EXPECT_EQ(wrong.code, Code::kCorrupt);
  EXPECT_TRUE(wrong.retry);
  EXPECT_EQ(read({0, content_.size()}).value(), content_);
  EXPECT_EQ(last_->reads().size(), 1u);
}

TEST_F(MirroredBlobTest, ASinkThatFailsForReasonsOfItsOwnBlamesNobody) {
  auto full = [](Bytes) -> Result<> { return fail(Code::kNoSpace, "disk"); };
  EXPECT_EQ(blob_->read({.range = {0, 10}, .deadline = soon(), .stop = {}}, full).error().code, Code::kNoSpace);
  EXPECT_TRUE(place_->worth_asking());
  EXPECT_THAT(last_->reads(), IsEmpty());
}

TEST_F(MirroredBlobTest, WhenAllFailTheLastOnesErrorIsTold) {
  first_->answer({.kind = Kind::kFail, .error = {.code = Code::kUnreachable, .what = "first"}});
  last_->answer({.kind = Kind::kFail, .error = {.code = Code::kDenied, .what = "last"}});
  EXPECT_EQ(read({0, 10}).error().what, "last");
  // With nobody well, everybody is asked again.
  EXPECT_TRUE(read({0, 10}));
}

TEST_F(MirroredBlobTest, AReaderThatLeavesBlamesNobody) {
  first_->answer({.kind = Kind::kStall});
  std::stop_source stop;
  stop.request_stop();
  auto got =
      blob_->read({.range = {0, 10}, .deadline = soon(), .stop = stop.get_token()}, [](Bytes) { return Result<>(); });
  EXPECT_EQ(got.error().code, Code::kCancelled);
  EXPECT_TRUE(place_->worth_asking());
}

}  // namespace
}  // namespace hydrant::source
