#include "fetch/filler.h"

#include <cerrno>

#include "fetch/filler_fixture.h"

namespace hydrant::fetch {
namespace {

TEST_F(FillerTest, ManyReadersOfOneGranuleCauseOneFetch) {
  start(4);
  blob().hold();
  for (unsigned i = 0; i < 8; ++i)
    filler_->read({5 * kGranule + i * 4096, 5 * kGranule + (i + 1) * 4096}, outcomes_.next());
  ASSERT_TRUE(wait_for_reads(1));
  blob().release();
  EXPECT_EQ(outcomes_.wait(8), all(8, Code::kOk));
  EXPECT_EQ(blob().reads(), (std::vector<ByteRange>{{5 * kGranule, 6 * kGranule}}));
  expect_right({5 * kGranule, 6 * kGranule});
}

TEST_F(FillerTest, AFillAsksTheCacheOnceWhetherItProvesWhatIsWritten) {
  auto options = quick();
  options.fill_unit = 16 * kGranule;
  start(1, options);
  read(0, 16);
  EXPECT_EQ(outcomes_.wait(1), all(1, Code::kOk));
  EXPECT_EQ(handle_->asked(), 1U) << "over a socket each time is a round trip";
}

TEST_F(FillerTest, WhatTheCacheHasLostAtOnceIsFetchedAgainAndWhatCrossedIsNot) {
  auto options = quick();
  options.fresh = 1h;
  start(2, options);
  read(5);
  EXPECT_EQ(outcomes_.wait(1), all(1, Code::kOk));
  read(5);
  EXPECT_EQ(outcomes_.wait(2), all(2, Code::kOk));
  EXPECT_EQ(blob().reads().size(), 1U);
  handle_->lose({5 * kGranule, 6 * kGranule});
  read(5);
  EXPECT_EQ(outcomes_.wait(3), all(3, Code::kOk));
  EXPECT_EQ(blob().reads().size(), 2U);
  expect_right({5 * kGranule, 6 * kGranule});
}

TEST_F(FillerTest, QueuedNeighboursBecomeOneFetch) {
  auto options = quick();
  options.fill_unit = 2 * kGranule;
  start(1, options, 6 * kGranule);
  blob().hold();
  read(0);
  ASSERT_TRUE(wait_for_reads(1));
  read(5);
  read(4);
  blob().release();
  EXPECT_EQ(outcomes_.wait(3), all(3, Code::kOk));
  EXPECT_EQ(blob().reads(), (std::vector<ByteRange>{{0, kGranule}, {4 * kGranule, 6 * kGranule}}));
}

TEST_F(FillerTest, AMissNearAnotherTakesAlongWhatFollows) {
  auto options = quick();
  options.of_many_files = {4 * kGranule, 3 * kGranule};
  options.fill_unit = 2 * kGranule;
  options.shortest_run = 64 * kGranule;
  start(1, options);
  size_t count = 0;
  auto expect_fetch = [&](uint64_t granule, ByteRange granules) {
    read(granule);
    ++count;
    EXPECT_EQ(outcomes_.wait(count), all(count, Code::kOk));
    ASSERT_EQ(blob().reads().size(), count);
    EXPECT_EQ(blob().reads().back(), (ByteRange{granules.begin * kGranule, granules.end * kGranule}));
  };
  expect_fetch(10, {10, 11});
  expect_fetch(5, {5, 6});  // five away
  expect_fetch(14, {14, 18});
  expect_fetch(22, {22, 23});
  expect_fetch(20, {20, 22});  // up to what is here
  expect_fetch(30, {30, 31});
  expect_fetch(29, {29, 30});
  expect_fetch(31, {31, 32});  // the device ends
}

TEST_F(FillerTest, ALongReadIsSharedByWorkersAndAnsweredOnce) {
  start(4);
  read(0, 32);
  EXPECT_EQ(outcomes_.wait(1), all(1, Code::kOk));
  EXPECT_EQ(blob().reads().size(), 32U);
  expect_right({0, 32 * kGranule});
}

TEST_F(FillerTest, RetryableFailuresAreTriedAgain) {
  start(1);
  FakeAnswer broken{.kind = FakeAnswer::Kind::kFail, .after = 100};
  broken.error = {.code = Code::kUnreachable, .what = "reset", .retry = true};
  blob().answer(broken, 3);
  read(7);
  EXPECT_EQ(outcomes_.wait(1), all(1, Code::kOk));
  EXPECT_EQ(blob().reads().size(), 4U);
  EXPECT_EQ(counters_->retries, 3U);
  expect_right({7 * kGranule, 8 * kGranule});
}

TEST_F(FillerTest, AFinalFailureFailsEveryReaderAndTheNextReadTriesAnew) {
  start(1);
  FakeAnswer denied{.kind = FakeAnswer::Kind::kFail};
  denied.error = {.code = Code::kDenied, .what = "403"};
  blob().answer(denied, 1);
  blob().hold();
  read(7);
  read(7);
  blob().release();
  EXPECT_EQ(outcomes_.wait(2), all(2, Code::kDenied));
  EXPECT_EQ(counters_->failures().at("denied"), 2U);
  EXPECT_EQ(origin_->forgotten, 1U) << "new credentials may come";
  EXPECT_EQ(handle_->writes(), 0U);
  read(7);
  EXPECT_EQ(outcomes_.wait(3).back(), Code::kOk);
}

TEST_F(FillerTest, CorruptBytesAreFetchedOnceMore) {
  start(1);
  blob().answer({.kind = FakeAnswer::Kind::kFlipBit, .after = 77}, 1);
  read(2);
  EXPECT_EQ(outcomes_.wait(1), all(1, Code::kOk));
  EXPECT_EQ(counters_->refetches, 1U);
  expect_right({2 * kGranule, 3 * kGranule});
}

TEST_F(FillerTest, BytesThatStayCorruptAreNeverWritten) {
  start(1);
  blob().answer({.kind = FakeAnswer::Kind::kZeroFill, .after = 10}, 5);
  read(2);
  EXPECT_EQ(outcomes_.wait(1), all(1, Code::kCorrupt));
  EXPECT_EQ(blob().reads().size(), 2U);
  EXPECT_EQ(handle_->writes(), 0U);
}

TEST_F(FillerTest, BytesThatTheCacheFindsCorruptAreFetchedOnceMore) {
  start(1);
  handle_->prove_against(content_);
  blob().answer({.kind = FakeAnswer::Kind::kZeroFill, .after = 10}, 1);
  read(2);
  EXPECT_EQ(outcomes_.wait(1), all(1, Code::kOk));
  EXPECT_EQ(handle_->writes(), 2U) << "what the cache proves is not hashed here before it is written";
  expect_right({2 * kGranule, 3 * kGranule});
}

TEST_F(FillerTest, AShortAnswerIsTriedAgainAndALongOneUsedAsFarAsItIsProven) {
  start(1);
  blob().answer({.kind = FakeAnswer::Kind::kTruncate, .after = 4096}, 1);
  blob().answer({.kind = FakeAnswer::Kind::kRepeat}, 1);
  read(2);
  EXPECT_EQ(outcomes_.wait(1), all(1, Code::kOk));
  EXPECT_EQ(blob().reads().size(), 2U);
  EXPECT_EQ(handle_->writes(), 1U);
  expect_right({2 * kGranule, 3 * kGranule});
}

TEST_F(FillerTest, AStalledOriginEndsAtTheReadersDeadline) {
  auto options = quick();
  options.reader_deadline = 60ms;
  start(1, options);
  blob().answer({.kind = FakeAnswer::Kind::kStall}, 100);
  read(2);
  EXPECT_EQ(outcomes_.wait(1), all(1, Code::kTooSlow));
}

TEST_F(FillerTest, AReaderInTheQueueExpiresWithoutAWorker) {
  auto options = quick();
  options.reader_deadline = 30s;
  start(1, options);
  blob().hold();
  read(2);
  ASSERT_TRUE(wait_for_reads(1));
  filler_->expire();
  EXPECT_EQ(outcomes_.wait(0).size(), 0U);
  options.reader_deadline = 0ms;
  shop_->options = options;
  read(9);
  filler_->expire();
  EXPECT_EQ(outcomes_.wait(1), all(1, Code::kTooSlow));
  blob().release();
  EXPECT_EQ(outcomes_.wait(2).back(), Code::kOk);
}

TEST_F(FillerTest, ClosingCancelsReadersAndWhatRunsForThem) {
  start(1);
  blob().hold();
  read(2);
  ASSERT_TRUE(wait_for_reads(1));
  read(9);
  filler_->close();
  EXPECT_EQ(outcomes_.wait(2), all(2, Code::kCancelled));
  read(1);
  EXPECT_EQ(outcomes_.wait(3).back(), Code::kCancelled);
  queue_.reset();  // joins: the read that was under way has ended
  EXPECT_EQ(handle_->writes(), 0U);
}

TEST_F(FillerTest, WritesAreRepeatedUntilTheCacheHasAttachedTheFile) {
  start(1);
  handle_->refuse(ENOBUFS, 5);
  read(2);
  EXPECT_EQ(outcomes_.wait(1), all(1, Code::kOk));
  EXPECT_EQ(handle_->writes(), 6U);
}

TEST_F(FillerTest, ACacheThatStaysFullFailsTheReader) {
  auto options = quick();
  options.attach_deadline = 50ms;
  start(1, options);
  handle_->refuse(ENOBUFS, 100'000);
  read(2);
  EXPECT_EQ(outcomes_.wait(1), all(1, Code::kNoSpace));
}

TEST_F(FillerTest, ShortWritesGoOnAtABlock) {
  start(1);
  handle_->write_at_most(10'000);
  read(2);
  EXPECT_EQ(outcomes_.wait(1), all(1, Code::kOk));
  expect_right({2 * kGranule, 3 * kGranule});
}

TEST_F(FillerTest, AReadThatCrossedItsFillIsNotFetchedAgainButALaterOneIs) {
  start(1);
  read(2);
  outcomes_.wait(1);
  read(2);
  EXPECT_EQ(outcomes_.wait(2), all(2, Code::kOk));
  EXPECT_EQ(blob().reads().size(), 1U);
  shop_->options.fresh = Duration(0);
  read(2);
  EXPECT_EQ(outcomes_.wait(3), all(3, Code::kOk));
  EXPECT_EQ(blob().reads().size(), 2U) << "the cache has lost the bytes";
}

TEST_F(FillerTest, AReadPastTheEndIsAnswered) {
  start(1, quick(), 3 * kGranule);
  filler_->read({3 * kGranule, 4 * kGranule}, outcomes_.next());
  filler_->read({2 * kGranule + 4096, 9 * kGranule}, outcomes_.next());
  EXPECT_EQ(outcomes_.wait(2), all(2, Code::kOk));
  EXPECT_EQ(blob().reads().size(), 1U);
}

TEST_F(FillerTest, ABrokenIndexFailsReadersUntilItIsReadable) {
  start(1);
  origin_->broken_layouts = 1;
  read(2);
  EXPECT_EQ(outcomes_.wait(1), all(1, Code::kCorrupt));
  read(2);
  EXPECT_EQ(outcomes_.wait(2).back(), Code::kOk);
}

TEST_F(FillerTest, MemoryStaysWithinTheBudget) {
  start(8);
  for (unsigned i = 32; i > 0; i -= 2) read(i - 2);  // backwards: no stream
  EXPECT_EQ(outcomes_.wait(16), all(16, Code::kOk));
  EXPECT_LE(memory_.peak(), 8 * 4 * kGranule) << "the batch, the granule in the making, twice that to decode";
  filler_->close();
  queue_.reset();
  EXPECT_EQ(memory_.used(), 0U);
}

}  // namespace
}  // namespace hydrant::fetch
