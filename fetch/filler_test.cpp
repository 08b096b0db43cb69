#include "fetch/filler.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <cerrno>
#include <future>

#include "fetch/fake_control.h"
#include "image/index/identity_layout.h"
#include "proto/merkle.h"
#include "source/fake.h"

namespace hydrant::fetch {
namespace {

using namespace std::chrono_literals;
using source::FakeAnswer;
using source::FakeBlob;

constexpr uint64_t kGranule = 64 << 10;

Buffer pattern(uint64_t size) {
  Buffer out(size);
  for (uint64_t i = 0; i < size; ++i) out[i] = std::byte((i * 2654435761u) >> 13);
  return out;
}

class FakeOrigin final : public Origin {
 public:
  explicit FakeOrigin(const Buffer& content) : blob_(std::make_shared<FakeBlob>(content)) {
    std::vector<Digest> leaves;
    for (uint64_t at = 0; at < content.size(); at += kGranule)
      leaves.push_back(proto::leaf_digest(Bytes(content).subspan(at, std::min(kGranule, content.size() - at))));
    layout_ = std::make_shared<image::IdentityLayout>(content.size(), kGranule, std::move(leaves));
  }
  Result<std::shared_ptr<const image::Layout>> layout() override {
    if (broken_layouts > 0) {
      --broken_layouts;
      return fail(Code::kCorrupt, "the index is broken");
    }
    return layout_;
  }
  Result<std::shared_ptr<source::Blob>> blob(Deadline) override { return blob_; }
  void forget(const std::shared_ptr<source::Blob>& blob) override { forgotten += blob == blob_; }
  bool many_files() const override { return true; }
  FakeBlob& fake() { return *blob_; }
  std::atomic<unsigned> forgotten{0};
  unsigned broken_layouts = 0;

 private:
  std::shared_ptr<const image::Layout> layout_;
  std::shared_ptr<FakeBlob> blob_;
};

// Outcomes of reads, for tests that wait.
class Outcomes {
 public:
  Filler::Done next() {
    return [this](Result<> result) {
      std::lock_guard lock(mutex_);
      codes_.push_back(result ? Code::kOk : result.error().code);
      changed_.notify_all();
    };
  }
  std::vector<Code> wait(size_t count) {
    std::unique_lock lock(mutex_);
    changed_.wait_until(lock, Deadline::after(20s).at(), [&] { return codes_.size() >= count; });
    return codes_;
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<Code> codes_;
};

std::vector<Code> all(size_t count, Code code) { return std::vector<Code>(count, code); }

class FillerTest : public testing::Test {
 protected:
  static FillOptions quick() {
    FillOptions options;
    options.first_backoff = 1ms;
    options.longest_backoff = 2ms;
    options.attach_deadline = 10s;
    options.fill_unit = kGranule;
    options.prefetch_unit = kGranule;
    options.of_many_files = {0, 0};
    options.shortest_run = 2 * kGranule;
    options.longest_ahead = 4 * kGranule;
    return options;
  }
  void start(unsigned workers, FillOptions options = quick(), uint64_t size = 32 * kGranule) {
    content_ = pattern(size);
    origin_ = std::make_shared<FakeOrigin>(content_);
    queue_ = std::make_unique<FillQueue>(workers, Duration(0));
    shop_ = std::make_unique<FillShop>(FillShop{*queue_, memory_, options});
    filler_ = Filler::create(*shop_, "object", handle_, origin_, counters_);
  }
  void TearDown() override {
    if (filler_) filler_->close();
    queue_.reset();
  }
  void read(uint64_t granule, uint64_t count = 1) {
    filler_->read({granule * kGranule, (granule + count) * kGranule}, outcomes_.next());
  }
  void expect_right(ByteRange range) {
    EXPECT_EQ(handle_->content(range), Buffer(content_.begin() + static_cast<ptrdiff_t>(range.begin),
                                              content_.begin() + static_cast<ptrdiff_t>(range.end)));
  }
  FakeBlob& blob() { return origin_->fake(); }
  bool wait_for_reads(size_t count) { return blob().wait_for_reads(count, Deadline::after(20s)); }

  Buffer content_;
  Outcomes outcomes_;
  std::shared_ptr<FakeHandle> handle_ = std::make_shared<FakeHandle>();
  std::shared_ptr<FakeOrigin> origin_;
  std::shared_ptr<Counters> counters_ = std::make_shared<Counters>();
  MemoryBudget memory_{64 << 20};
  std::unique_ptr<FillQueue> queue_;
  std::unique_ptr<FillShop> shop_;
  std::shared_ptr<Filler> filler_;
};

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
