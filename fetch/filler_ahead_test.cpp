// What nobody waits for yet: run-ahead, prefetch, the background.
#include <cerrno>
#include <future>

#include "fetch/filler_fixture.h"

namespace hydrant::fetch {
namespace {

// Spans of four granules, whose borders are in the middle of one: a fill of granule 4 needs two spans.
class SpannedLayout final : public image::Layout {
 public:
  explicit SpannedLayout(const Buffer& content) : plain_(content.size(), kGranule, leaves_of(content)) {}
  uint64_t device_size() const override { return plain_.device_size(); }
  uint64_t granule() const override { return kGranule; }
  image::Fill plan(ByteRange wanted) const override {
    const uint64_t begin = round_down(wanted.begin, kSpan), end = round_up(wanted.end, kSpan);
    return plain_.plan(
        {wanted.begin > 0 && wanted.begin % kSpan == 0 ? begin - kSpan : begin, std::min(end, device_size())});
  }
  uint64_t piece_end(ByteRange wanted) const override {
    return std::min(round_up(wanted.end, kSpan) + kGranule, device_size());
  }
  image::Fill plan_piece(ByteRange wanted) const override { return plain_.plan(wanted); }
  std::unique_ptr<Decoder> decoder(const image::Fill& fill, image::DeviceSink sink) const override {
    return plain_.decoder(fill, std::move(sink));
  }

 private:
  static constexpr uint64_t kSpan = 4 * kGranule;
  const image::IdentityLayout plain_;
};

TEST_F(FillerTest, AReaderOfQueuedReadAheadPromotesIt) {
  start(1);
  blob().hold();
  read(0);
  ASSERT_TRUE(wait_for_reads(1));
  read(1);   // a stream now: 2 and 3 are queued as read-ahead
  read(20);  // demand
  read(2);   // promotes, behind 20
  blob().release();
  EXPECT_EQ(outcomes_.wait(4), all(4, Code::kOk));
  auto reads = blob().reads();
  ASSERT_GE(reads.size(), 4U);
  EXPECT_EQ(reads[1].begin, 1 * kGranule);
  EXPECT_EQ(reads[2].begin, 20 * kGranule);
  EXPECT_EQ(reads[3].begin, 2 * kGranule);
}

TEST_F(FillerTest, ASequentialReaderIsRunAheadOfAndARandomOneIsNot) {
  start(2);
  read(3);
  read(20);
  read(9);
  EXPECT_EQ(outcomes_.wait(3), all(3, Code::kOk));
  EXPECT_EQ(blob().reads().size(), 3U);
  read(10);
  EXPECT_EQ(outcomes_.wait(4), all(4, Code::kOk));
  ASSERT_TRUE(wait_for_reads(5)) << "granule 10, and 11 and 12 ahead of it in one request";
  EXPECT_THAT(blob().reads(), testing::Contains(ByteRange{11 * kGranule, 13 * kGranule}));
}

TEST_F(FillerTest, ARunAheadBeginsWhereThePieceBeforeItEndsAndEndsAsOne) {
  auto options = quick();
  options.longest_ahead = 16 * kGranule;
  start(2, options);
  origin_->set_layout(std::make_shared<SpannedLayout>(content_));
  read(1);
  EXPECT_EQ(outcomes_.wait(1), all(1, Code::kOk));
  read(4);
  EXPECT_EQ(outcomes_.wait(2), all(2, Code::kOk));
  ASSERT_TRUE(wait_for_reads(3));
  const uint64_t granule = kGranule;
  EXPECT_THAT(blob().reads(),
              testing::UnorderedElementsAre(ByteRange{0, 4 * granule}, ByteRange{4 * granule, 9 * granule},
                                            ByteRange{9 * granule, 17 * granule}));
  read(9);
  EXPECT_EQ(outcomes_.wait(3), all(3, Code::kOk));
  ASSERT_TRUE(wait_for_reads(4)) << "it was held back, and moves the stream on";
  EXPECT_EQ(blob().reads().back().begin, 17 * granule);
}

TEST_F(FillerTest, TheFirstGranuleOfARunAheadIsKeptUntilItIsAskedForAndThenMovesTheStreamOn) {
  start(2);
  read(9);
  read(10);
  ASSERT_TRUE(wait_for_reads(3));  // 9, 10, and 11 to 12 ahead
  ASSERT_TRUE(handle_->wait_for_content(12 * kGranule, Deadline::after(20s))) << "12 goes into the cache";
  EXPECT_EQ(handle_->content({11 * kGranule, 12 * kGranule}), Buffer(kGranule)) << "11 does not";
  read(11);
  EXPECT_EQ(outcomes_.wait(3), all(3, Code::kOk));
  expect_right({9 * kGranule, 13 * kGranule});
  ASSERT_TRUE(wait_for_reads(4)) << "13 to 15 follow";
  EXPECT_THAT(blob().reads(), testing::Contains(ByteRange{13 * kGranule, 16 * kGranule}));
}

TEST_F(FillerTest, BytesThatWereKeptAreWrittenWhereTheyBelongWhateverIsReadBesideThem) {
  auto options = quick();
  options.fill_unit = 2 * kGranule;
  options.fresh = 0ms;  // granule 10 will be missed again, as after a failed fill or an eviction
  start(1, options);
  read(9);
  EXPECT_EQ(outcomes_.wait(1), all(1, Code::kOk));
  read(10);
  ASSERT_TRUE(handle_->wait_for_content(12 * kGranule, Deadline::after(20s))) << "11 is kept, 12 in the cache";
  blob().hold();
  read(25);
  ASSERT_TRUE(wait_for_reads(4)) << "the worker is busy";
  read(11);
  read(10);
  blob().release();
  EXPECT_EQ(outcomes_.wait(5), all(5, Code::kOk));
  expect_right({10 * kGranule, 12 * kGranule});
}

TEST_F(FillerTest, AGranuleThatNobodyAsksForIsNotKeptForEver) {
  auto options = quick();
  options.held_time = 0ms;
  start(2, options);
  read(9);
  read(10);
  ASSERT_TRUE(handle_->wait_for_content(12 * kGranule, Deadline::after(20s)));
  Deadline deadline = Deadline::after(20s);
  while (handle_->content({11 * kGranule, 12 * kGranule}) == Buffer(kGranule) && !deadline.passed()) filler_->expire();
  expect_right({9 * kGranule, 13 * kGranule});
  EXPECT_EQ(blob().reads().size(), 3U) << "from memory";
}

TEST_F(FillerTest, ARunAheadsFirstGranuleThatTheCacheFindsCorruptIsFetchedOnceMore) {
  start(1);
  handle_->prove_against(content_);
  read(0);
  ASSERT_EQ(outcomes_.wait(1), all(1, Code::kOk));
  blob().answer({.kind = FakeAnswer::Kind::kHonest}, 1);
  blob().answer({.kind = FakeAnswer::Kind::kZeroFill, .after = 10}, 1);  // of the run-ahead
  read(1);
  ASSERT_EQ(outcomes_.wait(2), all(2, Code::kOk));
  read(2);
  EXPECT_EQ(outcomes_.wait(3), all(3, Code::kOk));
  expect_right({2 * kGranule, 3 * kGranule});
}

TEST_F(FillerTest, AReaderThatJoinsARunAheadOutlivesItsDeadline) {
  start(1);
  read(9);
  EXPECT_EQ(outcomes_.wait(1), all(1, Code::kOk));
  blob().answer({.kind = FakeAnswer::Kind::kHonest}, 1);
  blob().answer({.kind = FakeAnswer::Kind::kStall}, 1);
  shop_->options.reader_deadline = 1s;
  read(10);  // and 11 and 12 ahead, which stall
  ASSERT_TRUE(wait_for_reads(3));
  shop_->options.reader_deadline = 60s;
  read(12);
  EXPECT_EQ(outcomes_.wait(3), all(3, Code::kOk));
  expect_right({12 * kGranule, 13 * kGranule});
}

TEST_F(FillerTest, APrefetchFetchesWhatTheCacheLacks) {
  start(2);
  const Buffer there(kGranule, std::byte{1});
  ASSERT_EQ(handle_->pwrite(there, 3 * kGranule), int64_t(kGranule));
  filler_->prefetch({{2 * kGranule + 4096, 5 * kGranule}, {8 * kGranule, 8 * kGranule + 4096}});
  ASSERT_TRUE(wait_for_reads(3));
  ASSERT_TRUE(handle_->wait_for_content(8 * kGranule, Deadline::after(20s)));
  ASSERT_TRUE(handle_->wait_for_content(4 * kGranule, Deadline::after(20s)));
  auto reads = blob().reads();
  std::sort(reads.begin(), reads.end(), [](ByteRange a, ByteRange b) { return a.begin < b.begin; });
  EXPECT_EQ(reads, (std::vector<ByteRange>{
                       {2 * kGranule, 3 * kGranule}, {4 * kGranule, 5 * kGranule}, {8 * kGranule, 9 * kGranule}}));
  expect_right({2 * kGranule, 3 * kGranule});
  expect_right({4 * kGranule, 5 * kGranule});
  EXPECT_EQ(handle_->content({3 * kGranule, 4 * kGranule}), there);
}

TEST_F(FillerTest, APrefetchJoinsNeighbours) {
  auto options = quick();
  options.prefetch_unit = 4 * kGranule;
  start(1, options);
  filler_->prefetch({{9 * kGranule, 10 * kGranule}, {5 * kGranule, 6 * kGranule}, {4 * kGranule, 5 * kGranule}});
  ASSERT_TRUE(wait_for_reads(2));
  EXPECT_EQ(blob().reads(), (std::vector<ByteRange>{{9 * kGranule, 10 * kGranule}, {4 * kGranule, 6 * kGranule}}));
}

TEST_F(FillerTest, AReaderOvertakesThePrefetchItMeets) {
  start(1);
  blob().hold();
  filler_->prefetch({{0, kGranule}});
  ASSERT_TRUE(wait_for_reads(1));
  filler_->prefetch({{4 * kGranule, 5 * kGranule}, {9 * kGranule, 10 * kGranule}});
  read(9);
  read(20);
  blob().release();
  EXPECT_EQ(outcomes_.wait(2), all(2, Code::kOk));
  ASSERT_TRUE(handle_->wait_for_content(4 * kGranule, Deadline::after(20s)));
  auto reads = blob().reads();
  ASSERT_EQ(reads.size(), 4U);
  EXPECT_EQ(reads[3], (ByteRange{4 * kGranule, 5 * kGranule})) << "last, as nobody waits for it";
}

TEST_F(FillerTest, APrefetchOfAFileThatIsNotAttachedYetComesLater) {
  start(1);
  handle_->lose_file(3);
  filler_->prefetch({{4 * kGranule, 5 * kGranule}});
  ASSERT_TRUE(handle_->wait_for_content(4 * kGranule, Deadline::after(20s)));
  expect_right({4 * kGranule, 5 * kGranule});
}

TEST_F(FillerTest, APrefetchThatFailsIsNobodysFailure) {
  start(1);
  FakeAnswer broken{.kind = FakeAnswer::Kind::kFail};
  broken.error.retry = true;
  blob().answer(broken, 1);
  filler_->prefetch({{4 * kGranule, 5 * kGranule}});
  ASSERT_TRUE(wait_for_reads(1));
  read(4);
  EXPECT_EQ(outcomes_.wait(1), all(1, Code::kOk));
  EXPECT_TRUE(counters_->failures().empty());
}

TEST_F(FillerTest, ABackgroundFetchCompletesTheObjectAndSaysSo) {
  auto options = quick();
  options.background_unit = 4 * kGranule;
  options.background_pass = 1ms;
  start(2, options);
  const Buffer there(2 * kGranule, std::byte{1});
  ASSERT_EQ(handle_->pwrite(there, 5 * kGranule), int64_t(2 * kGranule));
  std::promise<void> done;
  filler_->complete([&] { done.set_value(); });
  ASSERT_EQ(done.get_future().wait_for(20s), std::future_status::ready);
  expect_right({0, 5 * kGranule});
  expect_right({7 * kGranule, 32 * kGranule});
  EXPECT_EQ(handle_->content({5 * kGranule, 7 * kGranule}), there) << "it was there";
}

TEST_F(FillerTest, ABackgroundFetchGivesWayToReadersAndGoesOn) {
  auto options = quick();
  options.background_unit = 4 * kGranule;
  options.background_pass = 1ms;
  start(1, options);
  blob().answer({.kind = FakeAnswer::Kind::kStall}, 1);
  std::promise<void> done;
  filler_->complete([&] { done.set_value(); });
  ASSERT_TRUE(wait_for_reads(1));
  read(20);  // the only worker hangs in background work
  EXPECT_EQ(outcomes_.wait(1), all(1, Code::kOk));
  EXPECT_EQ(blob().reads()[1].begin, 20 * kGranule);
  ASSERT_EQ(done.get_future().wait_for(20s), std::future_status::ready);
  expect_right({0, 32 * kGranule});
  EXPECT_TRUE(counters_->failures().empty());
}

TEST_F(FillerTest, AReaderThatHasJoinedABackgroundFetchIsServedWhenThatGivesWay) {
  auto options = quick();
  options.background_unit = 4 * kGranule;
  start(1, options);
  blob().answer({.kind = FakeAnswer::Kind::kStall}, 1);
  filler_->complete([] {});
  ASSERT_TRUE(wait_for_reads(1));
  read(1);
  read(20);
  EXPECT_EQ(outcomes_.wait(2), all(2, Code::kOk));
  expect_right({kGranule, 2 * kGranule});
}

TEST_F(FillerTest, WhatNobodyWaitsForKeepsToItsRateAndWhatSomebodyWaitsForDoesNot) {
  undemanded_.emplace(1);  // a byte a second: nothing ends by itself
  start(2);
  std::promise<void> done;
  filler_->complete([&] { done.set_value(); });
  ASSERT_TRUE(wait_for_reads(1));
  read(0);
  read(20);
  EXPECT_EQ(outcomes_.wait(2), all(2, Code::kOk)) << "one that is on its way, and one that is not";
  expect_right({0, kGranule});
  expect_right({20 * kGranule, 21 * kGranule});
  filler_->close();
  EXPECT_EQ(done.get_future().wait_for(0s), std::future_status::timeout);
}

TEST_F(FillerTest, ABackgroundFetchThatFailsIsTriedAgain) {
  auto options = quick();
  options.background_pass = options.background_pause = 1ms;
  start(1, options);
  blob().answer({.kind = FakeAnswer::Kind::kFail}, 3);
  std::promise<void> done;
  filler_->complete([&] { done.set_value(); });
  ASSERT_EQ(done.get_future().wait_for(20s), std::future_status::ready);
  expect_right({0, 32 * kGranule});
}

}  // namespace
}  // namespace hydrant::fetch
