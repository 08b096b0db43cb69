// The small things everything else leans on.
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <atomic>
#include <filesystem>
#include <future>

#include "base/byte_range.h"
#include "base/bytes.h"
#include "base/clock.h"
#include "base/digest.h"
#include "base/error.h"
#include "base/fd.h"
#include "base/file.h"
#include "base/gate.h"
#include "base/temporary_directory.h"
#include "base/thread_pool.h"
#include "base/unique_function.h"

namespace hydrant {
namespace {

using namespace std::chrono_literals;

class InADirectory : public ::testing::Test {
 protected:
  const TemporaryDirectory temporary_;
  const std::string path_ = temporary_.path();
};

Result<int> half(int value) {
  if (value % 2) return fail(Code::kInvalid, "odd");
  return value / 2;
}
Result<int> quarter(int value) {
  HYDRANT_TRY(int once, half(value));
  HYDRANT_TRY(int twice, half(once));
  return twice;
}

TEST(Error, TryReturnsTheFirstErrorAndPassesValues) {
  EXPECT_EQ(quarter(12).value(), 3);
  EXPECT_EQ(quarter(6).error().code, Code::kInvalid);
}

TEST(Error, ContextGrowsOutward) { EXPECT_EQ(Error{.what = "403"}.in("GET blob").what, "GET blob: 403"); }

TEST(Error, ANetworkFaultIsNeverEpermOrEacces) {
  for (Code code : {Code::kUnreachable, Code::kTooSlow, Code::kGone, Code::kUnauthorized, Code::kCorrupt})
    EXPECT_EQ(to_errno(code), EIO) << to_string(code);
}

TEST(ByteRange, OverflowingRangesAreRefused) {
  EXPECT_FALSE(make_range(UINT64_MAX, 2));
  EXPECT_EQ(make_range(4, 4), (ByteRange{4, 8}));
}

TEST(ByteRange, AlignsOutwardAndIntersects) {
  EXPECT_EQ(align_outward({4097, 8193}, 4096), (ByteRange{4096, 12288}));
  EXPECT_EQ(intersect({0, 10}, {5, 20}), (ByteRange{5, 10}));
  EXPECT_TRUE(intersect({0, 10}, {10, 20}).empty());
}

TEST(Cursor, AReadPastTheEndStaysFailed) {
  Buffer bytes(3, std::byte{1});
  Cursor cursor(bytes);
  EXPECT_EQ(cursor.take<uint16_t>(), 0x0101);
  EXPECT_EQ(cursor.take<uint16_t>(), 0);
  EXPECT_EQ(cursor.take<uint8_t>(), 0) << "the byte that is left must not be handed out after a miss";
  EXPECT_FALSE(cursor.ok());
}

TEST(Cursor, VarintsRoundTripAndOverlongOnesFail) {
  for (uint64_t value : {uint64_t{0}, uint64_t{127}, uint64_t{128}, uint64_t{1} << 35, UINT64_MAX}) {
    Buffer bytes;
    append_varint(bytes, value);
    Cursor cursor(bytes);
    EXPECT_EQ(cursor.take_varint(), value);
    EXPECT_TRUE(cursor.ok());
  }
  Buffer endless(11, std::byte{0xff});
  Cursor cursor(endless);
  cursor.take_varint();
  EXPECT_FALSE(cursor.ok());
}

TEST(Digest, MatchesTheStandardsTestVectorInAnyChunking) {
  const char* expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
  EXPECT_EQ(sha256(as_bytes("abc")).hex(), expected);
  Sha256 hash;
  hash.update(as_bytes("a"));
  hash.update(as_bytes("bc"));
  EXPECT_EQ(hash.finish().text(), std::string("sha256:") + expected);
}

TEST(Digest, ParsesBothFormsAndRefusesTheRest) {
  std::string hex(64, 'a');
  EXPECT_EQ(Digest::parse("sha256:" + hex).value(), Digest::parse(hex).value());
  EXPECT_EQ(Digest::parse("sha512:" + hex).error().code, Code::kUnsupported);
  EXPECT_EQ(Digest::parse("sha256:" + hex.substr(1)).error().code, Code::kInvalid);
  EXPECT_EQ(Digest::parse(std::string(64, 'G')).error().code, Code::kInvalid);
}

TEST(Fd, ClosesOnceAndMovesOwnership) {
  Fd first(::open("/dev/null", O_RDONLY | O_CLOEXEC));
  int number = first.get();
  Fd second = std::move(first);
  EXPECT_FALSE(first);
  EXPECT_EQ(second.get(), number);
  second.reset();
  EXPECT_EQ(::fcntl(number, F_GETFD), -1);
}

TEST_F(InADirectory, AtomicWriteReplacesAndLeavesNoTemporary) {
  std::string path = path_ + "/record";
  ASSERT_TRUE(write_file_atomic(path, as_bytes("one")));
  ASSERT_TRUE(write_file_atomic(path, as_bytes("two"), 0640));
  EXPECT_EQ(read_file(path).value(), "two");
  struct stat status {};
  ASSERT_EQ(::stat(path.c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 07777, 0640u);
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(path_), {}), 1);
}

TEST_F(InADirectory, AtomicWriteThatFailsLeavesTheOldFile) {
  std::string path = path_ + "/record";
  ASSERT_TRUE(make_directories(path + "/in/the/way"));
  auto result = write_file_atomic(path, as_bytes("x"));
  ASSERT_FALSE(result);
  EXPECT_NE(result.error().what.find(path), std::string::npos) << "the error names the file";
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(path_), {}), 1);
}

TEST_F(InADirectory, ReadFileKeepsItsLimit) {
  std::string path = path_ + "/long";
  ASSERT_TRUE(write_file_atomic(path, Buffer(10'000)));
  EXPECT_EQ(read_file(path, 9'999).error().code, Code::kInvalid);
  EXPECT_EQ(read_file(path, 10'000).value().size(), 10'000u);
  EXPECT_EQ(read_file(path_ + "/none").error().code, Code::kNotFound);
}

TEST_F(InADirectory, MakeDirectoriesRefusesAFileInTheWay) {
  ASSERT_TRUE(write_file_atomic(path_ + "/file", {}));
  EXPECT_FALSE(make_directories(path_ + "/file/below"));
  EXPECT_FALSE(make_directories(path_ + "/file"));
  EXPECT_TRUE(make_directories(path_ + "/a/b/c"));
  EXPECT_TRUE(make_directories(path_ + "/a/b/c")) << "a second time is no error";
}

TEST(Deadline, CountsDownOnItsClock) {
  ManualClock clock;
  auto deadline = Deadline::after(1500us, clock);
  EXPECT_EQ(deadline.left_ms(clock), 2) << "rounded up, so that poll does not spin";
  clock.advance(2ms);
  EXPECT_TRUE(deadline.passed(clock));
  EXPECT_EQ(deadline.left(clock).count(), 0);
}

TEST(Deadline, MayBeTheFirstInstantThereIs) {
  ManualClock clock;
  clock.advance(2ms);
  EXPECT_EQ(Deadline(Instant::min()).left(clock).count(), 0);
  EXPECT_EQ(Deadline(Instant::min()).left_ms(clock), 0);
}

TEST(Gate, RefusesNewcomersAndWaitsForTheLastInside) {
  Gate gate;
  auto inside = gate.enter();
  ASSERT_TRUE(inside);
  EXPECT_FALSE(gate.close(Deadline::after(0ms))) << "somebody is inside";
  EXPECT_FALSE(gate.enter());
  auto closed = std::async(std::launch::async, [&] { return gate.close(Deadline::after(10s)); });
  inside.reset();
  EXPECT_TRUE(closed.get());
}

TEST(ThreadPool, RunsWhatIsQueuedBeforeItEnds) {
  std::atomic<int> ran = 0;
  {
    ThreadPool pool("test", 3);
    for (int i = 0; i < 1000; ++i) pool.submit([&ran] { ++ran; });
  }
  EXPECT_EQ(ran, 1000);
}

TEST(UniqueFunction, CarriesMoveOnlyState) {
  auto owned = std::make_unique<int>(7);
  UniqueFunction<int(int)> add = [owned = std::move(owned)](int more) { return *owned + more; };
  auto moved = std::move(add);
  EXPECT_EQ(moved(1), 8);
  EXPECT_FALSE(add);
}

}  // namespace
}  // namespace hydrant
