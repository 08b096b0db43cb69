#include <gmock/gmock.h>
#include <sys/stat.h>

#include <filesystem>
#include <thread>

#include "base/mount_info.h"
#include "front/fuse/blob_fs.h"
#include "tests/front/fake_cookie.h"
#include "tests/front/kernel_test.h"

namespace hydrant {
namespace {

using front::BlobFs;
using std::chrono::milliseconds;
using testing::Child;
using testing::eventually;
using testing::FakeCookie;
using testing::oracle_bytes;

class BlobFsTest : public ::testing::Test {
 protected:
  void SetUp() override {
    REQUIRE_MOUNTS();
    start(std::chrono::seconds(60));
  }
  void start(Duration limit) {
    fs.reset();
    auto made = BlobFs::create({.mount_point = scratch.make("blobs"), .threads = 2, .read_limit = limit});
    ASSERT_TRUE(made) << made.error().what;
    fs = std::move(*made);
  }
  std::shared_ptr<FakeCookie> add(const std::string& name, uint64_t size) {
    auto cookie = std::make_shared<FakeCookie>(scratch / ("backing-" + name), size,
                                               [](uint64_t at, MutableBytes out) { oracle_bytes(7, at, out); });
    auto added = fs->add(name, cookie, size, {"volume", "id"});
    EXPECT_TRUE(added) << added.error().what;
    return cookie;
  }
  std::string path(const std::string& name) { return scratch / ("blobs/" + name); }
  // A child that reads 4096 bytes at `offset`: exit status is the errno, 0, or 250 for wrong bytes.
  Child reader(const std::string& name, uint64_t offset) {
    Fd fd(::open(path(name).c_str(), O_RDONLY | O_CLOEXEC));
    EXPECT_TRUE(fd);
    Buffer expected = oracle_bytes(7, offset, 4096);
    return Child([&fd, &expected, offset] {
      char got[4096];
      ssize_t n = ::pread(fd.get(), got, sizeof got, static_cast<off_t>(offset));
      if (n < 0) return errno;
      return n == 4096 && !std::memcmp(got, expected.data(), 4096) ? 0 : 250;
    });
  }

  testing::ScratchDir scratch;
  std::unique_ptr<BlobFs> fs;
};

TEST_F(BlobFsTest, AMissIsFilledAndTheNextReadIsAHit) {
  auto cookie = add("a", 4 << 20);
  auto fd = open_file(path("a"), O_RDONLY);
  ASSERT_TRUE(fd) << fd.error().what;
  Buffer got(4096);
  ASSERT_TRUE(pread_exact(fd->get(), got, 1 << 20));
  EXPECT_EQ(got, oracle_bytes(7, 1 << 20, 4096));
  EXPECT_EQ(cookie->requests(), 1u);
  ASSERT_TRUE(pread_exact(fd->get(), got, 1 << 20));
  EXPECT_EQ(got, oracle_bytes(7, 1 << 20, 4096));
  EXPECT_EQ(cookie->requests(), 1u);
  EXPECT_TRUE(eventually([&] { return fs->stat().hits == 1 && fs->stat().misses == 1; }));
}

TEST_F(BlobFsTest, AReadOfOneMebibyteIsOneRequest) {
  auto cookie = add("a", 4 << 20);
  auto fd = open_file(path("a"), O_RDONLY);
  ASSERT_TRUE(fd);
  Buffer got(1 << 20);
  ASSERT_TRUE(pread_exact(fd->get(), got, 0));
  EXPECT_EQ(got, oracle_bytes(7, 0, 1 << 20));
  // The buffer may start inside a page and so span one page more than the kernel puts into one request.
  EXPECT_LE(cookie->requests(), 2u);
}

TEST_F(BlobFsTest, TheTailPastTheDataReadsAsZerosUpToTheBlock) {
  add("a", 10000);
  struct stat status {};
  ASSERT_EQ(::stat(path("a").c_str(), &status), 0);
  EXPECT_EQ(status.st_size, 12288);
  auto fd = open_file(path("a"), O_RDONLY);
  ASSERT_TRUE(fd);
  Buffer got(65536);
  auto n = pread_some(fd->get(), got, 0);
  ASSERT_TRUE(n) << n.error().what;
  ASSERT_EQ(*n, 12288u);
  EXPECT_EQ(Buffer(got.begin(), got.begin() + 10000), oracle_bytes(7, 0, 10000));
  EXPECT_EQ(Buffer(got.begin() + 10000, got.begin() + 12288), Buffer(2288));
}

TEST_F(BlobFsTest, AFillThatFailsIsEioAndTheNextReadAsksAgain) {
  auto cookie = add("a", 1 << 20);
  cookie->set_mood(FakeCookie::Mood::kFail);
  EXPECT_EQ(reader("a", 0).wait(), EIO);
  EXPECT_EQ(fs->stat().errors, 1u);
  cookie->set_mood(FakeCookie::Mood::kFill);
  EXPECT_EQ(reader("a", 0).wait(), 0);
}

TEST_F(BlobFsTest, AReadOverItsLimitIsEioAndItsRequestIsWithdrawn) {
  start(milliseconds(200));
  auto cookie = add("a", 1 << 20);
  cookie->set_mood(FakeCookie::Mood::kHold);
  EXPECT_EQ(reader("a", 0).wait(), EIO);
  EXPECT_TRUE(eventually([&] { return fs->stat().too_slow == 1 && cookie->cancelled() == 1; }));
  EXPECT_EQ(fs->stat().waiting, 0u);
}

TEST_F(BlobFsTest, AKilledReaderDiesAtOnceAndItsRequestIsWithdrawn) {
  auto cookie = add("a", 1 << 20);
  cookie->set_mood(FakeCookie::Mood::kHold);
  Child child = reader("a", 0);
  ASSERT_TRUE(eventually([&] { return fs->stat().waiting == 1; }));
  child.kill();
  EXPECT_EQ(child.wait(milliseconds(2000)), 128 + SIGKILL);
  EXPECT_TRUE(eventually([&] { return fs->stat().interrupted == 1 && cookie->cancelled() == 1; }));
  cookie->set_mood(FakeCookie::Mood::kFill);
  EXPECT_EQ(reader("a", 0).wait(), 0);
}

TEST_F(BlobFsTest, HundredsOfReadersWaitAtOnceAndAllGetTheirBytes) {
  auto cookie = add("a", 8 << 20);
  cookie->set_mood(FakeCookie::Mood::kHold);
  constexpr unsigned kReaders = 300;
  std::atomic<unsigned> wrong{0};
  auto fd = open_file(path("a"), O_RDONLY);
  ASSERT_TRUE(fd);
  std::vector<std::jthread> readers;
  for (unsigned i = 0; i < kReaders; ++i)
    readers.emplace_back([&, i] {
      Buffer got(4096);
      if (!pread_exact(fd->get(), got, i * 8192) || got != oracle_bytes(7, i * 8192, 4096)) ++wrong;
    });
  EXPECT_TRUE(eventually([&] { return fs->stat().waiting == kReaders; }));
  cookie->set_mood(FakeCookie::Mood::kFill);
  readers.clear();
  EXPECT_EQ(wrong, 0u);
}

TEST_F(BlobFsTest, TheEndOfTheFileSystemFailsWhoWaitsAndWhoComesLater) {
  auto cookie = add("a", 1 << 20);
  cookie->set_mood(FakeCookie::Mood::kHold);
  auto fd = open_file(path("a"), O_RDONLY);
  ASSERT_TRUE(fd);
  Child child = reader("a", 0);
  ASSERT_TRUE(eventually([&] { return fs->stat().waiting == 1; }));
  fs.reset();
  EXPECT_EQ(child.wait(milliseconds(2000)), EIO);
  char byte;
  EXPECT_EQ(::pread(fd->get(), &byte, 1, 0), -1);
  EXPECT_TRUE(errno == ENOTCONN || errno == EIO || errno == ECONNABORTED) << errno;
  EXPECT_EQ(find_mount(*read_mounts(), scratch / "blobs"), nullptr);
}

TEST_F(BlobFsTest, ARemovedNameIsGoneAtOnceButAnOpenFileReadsOn) {
  auto first = add("a", 1 << 20);
  auto fd = open_file(path("a"), O_RDONLY);
  ASSERT_TRUE(fd);
  fs->remove("a");
  EXPECT_FALSE(open_file(path("a"), O_RDONLY));
  auto second = add("a", 8192);
  struct stat status {};
  ASSERT_EQ(::stat(path("a").c_str(), &status), 0);
  EXPECT_EQ(status.st_size, 8192);
  Buffer got(4096);
  ASSERT_TRUE(pread_exact(fd->get(), got, 65536));
  EXPECT_EQ(got, oracle_bytes(7, 65536, 4096));
  EXPECT_EQ(first->requests(), 1u);
  // The last close gives the first cookie back.
  EXPECT_GT(first.use_count(), 1);
  fd->reset();
  EXPECT_TRUE(eventually([&] { return first.use_count() == 1; }));
}

TEST_F(BlobFsTest, TheDirectoryListsItsFilesAndNothingCanBeWritten) {
  for (int i = 0; i < 300; ++i) add("blob-" + std::to_string(i), 4096);
  size_t listed = 0;
  for (auto& entry : std::filesystem::directory_iterator(scratch / "blobs")) {
    EXPECT_TRUE(entry.path().filename().string().starts_with("blob-"));
    ++listed;
  }
  EXPECT_EQ(listed, 300u);
  EXPECT_FALSE(open_file(path("blob-0"), O_RDWR));
  EXPECT_FALSE(open_file(path("new"), O_RDWR | O_CREAT));
  EXPECT_FALSE(open_file(path("missing"), O_RDONLY));
}

TEST_F(BlobFsTest, AMountThatADeadOneLeftIsReplaced) {
  Child victim([&] {
    auto made = BlobFs::create({.mount_point = scratch.make("stale")});
    if (!made) return 1;
    for (;;) ::pause();
  });
  ASSERT_TRUE(eventually([&] { return find_mount(*read_mounts(), scratch / "stale") != nullptr; }));
  victim.kill();
  EXPECT_EQ(victim.wait(), 128 + SIGKILL);
  auto made = BlobFs::create({.mount_point = scratch / "stale"});
  ASSERT_TRUE(made) << made.error().what;
  EXPECT_TRUE(std::filesystem::is_empty(scratch / "stale"));
}

}  // namespace
}  // namespace hydrant
