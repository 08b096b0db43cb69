// EROFS as the kernel reads it, over blob files that a fake user daemon fills on demand.
#include <gtest/gtest.h>
#include <sys/mount.h>

#include <filesystem>
#include <fstream>
#include <thread>

#include "base/fs_context.h"
#include "daemon/erofs_mount.h"
#include "front/fuse/blob_fs.h"
#include "tests/front/fake_cookie.h"
#include "tests/front/kernel_test.h"

namespace hydrant {
namespace {

namespace fs = std::filesystem;
using daemon::ErofsSource;
using front::BlobFs;
using testing::Child;
using testing::eventually;
using testing::FakeCookie;
using testing::oracle_bytes;

struct File {
  std::string name;
  uint64_t seed;
  size_t size;
};
const File kFiles[] = {{"small", 1, 10}, {"page", 2, 4096}, {"odd", 3, 100001}, {"large", 4, (8 << 20) + 17}};

class ErofsTest : public ::testing::Test {
 protected:
  void SetUp() override {
    REQUIRE_MOUNTS();
    if (std::system("command -v mkfs.erofs >/dev/null")) GTEST_SKIP() << "NOT RUN: no mkfs.erofs (erofs-utils)";
    if (auto probed = daemon::probe_erofs(scratch.path()); !probed) GTEST_SKIP() << "NOT RUN: " << probed.error().what;

    std::string tree = scratch.make("tree/sub");
    for (const File& file : kFiles) {
      Buffer bytes = oracle_bytes(file.seed, 0, file.size);
      std::ofstream(tree + "/" + file.name, std::ios::binary)
          .write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
    }
    std::string command = "mkfs.erofs --quiet -Eforce-inode-extended --chunksize=4096 --blobdev=" + (scratch / "blob") +
                          " " + (scratch / "meta") + " " + (scratch / "tree") + " >/dev/null 2>&1";
    ASSERT_EQ(std::system(command.c_str()), 0);
    ASSERT_GT(fs::file_size(scratch / "blob"), 8u << 20);
  }

  // The blob's bytes come from the file that mkfs wrote, copied into a cookie's sparse file on demand.
  std::shared_ptr<FakeCookie> make_cookie() {
    auto source = std::make_shared<Fd>(*open_file(scratch / "blob", O_RDONLY));
    return std::make_shared<FakeCookie>(
        scratch / "sparse", fs::file_size(scratch / "blob"),
        [source](uint64_t at, MutableBytes out) { EXPECT_TRUE(pread_exact(source->get(), out, at)); });
  }
  static Result<std::unique_ptr<BlobFs>> make_blobs(const std::string& at) {
    return BlobFs::create({.mount_point = at});
  }

  Result<std::string> mount(BlobFs& blobs, const std::string& blob, const std::string& name) {
    ErofsSource source;
    HYDRANT_TRY(source.primary, open_file(scratch / "meta", O_RDONLY));
    HYDRANT_TRY(Fd device, blobs.open(blob));
    source.devices.push_back(std::move(device));
    HYDRANT_TRY(auto made, daemon::make_erofs_mount(source));
    std::string dir = scratch.make(name);
    HYDRANT_TRY(Fd directory, open_file(dir, O_PATH | O_DIRECTORY));
    HYDRANT_TRY_VOID(attach_mount(made.mount, directory));
    return dir;
  }
  static void expect_tree(const std::string& dir) {
    for (const File& file : kFiles) {
      auto bytes = read_file(dir + "/sub/" + file.name);
      ASSERT_TRUE(bytes) << bytes.error().what;
      EXPECT_TRUE(to_buffer(as_bytes(*bytes)) == oracle_bytes(file.seed, 0, file.size)) << file.name;
    }
  }

  testing::ScratchDir scratch;
};

TEST_F(ErofsTest, ALazilyFilledImageReadsAsItsTree) {
  auto blobs = make_blobs(scratch.make("blobs"));
  ASSERT_TRUE(blobs) << blobs.error().what;
  auto cookie = make_cookie();
  ASSERT_TRUE((*blobs)->add("blob", cookie, cookie->size(), {"volume", "id"}));
  auto dir = mount(**blobs, "blob", "mnt");
  ASSERT_TRUE(dir) << dir.error().what;
  EXPECT_EQ(cookie->requests(), 0u);  // mounting and looking around asks for nothing
  EXPECT_EQ(fs::file_size(*dir + "/sub/odd"), 100001u);
  EXPECT_EQ(cookie->requests(), 0u);
  expect_tree(*dir);
  uint64_t requests = cookie->requests();
  EXPECT_GT(requests, 0u);
  expect_tree(*dir);
  EXPECT_EQ(cookie->requests(), requests);  // the kernel holds the pages
  EXPECT_EQ(::umount2(dir->c_str(), 0), 0);
}

TEST_F(ErofsTest, TwoMountsShareADeviceAndTheSecondAsksForNothing) {
  auto blobs = make_blobs(scratch.make("blobs"));
  ASSERT_TRUE(blobs);
  auto cookie = make_cookie();
  ASSERT_TRUE((*blobs)->add("blob", cookie, cookie->size(), {"volume", "id"}));
  auto first = mount(**blobs, "blob", "one"), second = mount(**blobs, "blob", "two");
  ASSERT_TRUE(first && second);
  expect_tree(*first);
  uint64_t requests = cookie->requests();
  ASSERT_EQ(::umount2(first->c_str(), 0), 0);
  expect_tree(*second);
  EXPECT_EQ(cookie->requests(), requests);
}

TEST_F(ErofsTest, AFailedFillIsEioAndLeavesNothingBehind) {
  auto blobs = make_blobs(scratch.make("blobs"));
  ASSERT_TRUE(blobs);
  auto cookie = make_cookie();
  cookie->set_mood(FakeCookie::Mood::kFail);
  ASSERT_TRUE((*blobs)->add("blob", cookie, cookie->size(), {"volume", "id"}));
  auto dir = mount(**blobs, "blob", "mnt");
  ASSERT_TRUE(dir) << dir.error().what;
  auto bytes = read_file(*dir + "/sub/odd");
  ASSERT_FALSE(bytes);
  EXPECT_EQ(bytes.error().sys, EIO);
  cookie->set_mood(FakeCookie::Mood::kFill);
  expect_tree(*dir);
}

TEST_F(ErofsTest, AReaderThatWaitsInEroFsCanBeKilled) {
  auto blobs = make_blobs(scratch.make("blobs"));
  ASSERT_TRUE(blobs);
  auto cookie = make_cookie();
  cookie->set_mood(FakeCookie::Mood::kHold);
  ASSERT_TRUE((*blobs)->add("blob", cookie, cookie->size(), {"volume", "id"}));
  auto dir = mount(**blobs, "blob", "mnt");
  ASSERT_TRUE(dir) << dir.error().what;
  auto file = open_file(*dir + "/sub/large", O_RDONLY);
  ASSERT_TRUE(file);
  Child reader([&] {
    char byte;
    return ::pread(file->get(), &byte, 1, 4 << 20) == 1 ? 0 : errno;
  });
  ASSERT_TRUE(eventually([&] { return (*blobs)->stat().waiting > 0; }));
  reader.kill();
  EXPECT_EQ(reader.wait(std::chrono::milliseconds(2000)), 128 + SIGKILL);
}

TEST_F(ErofsTest, AServerThatIsKilledGivesErrorsNeverZeros) {
  scratch.make("blobs");
  scratch.make("mnt");
  Child server([&] {
    auto blobs = make_blobs(scratch / "blobs");
    if (!blobs) return 1;
    auto cookie = make_cookie();
    if (!(*blobs)->add("blob", cookie, cookie->size(), {"volume", "id"})) return 2;
    if (!mount(**blobs, "blob", "mnt")) return 3;
    if (!read_file(scratch / "mnt/sub/odd")) return 4;  // some pages are warm
    cookie->set_mood(FakeCookie::Mood::kHold);
    std::ofstream(scratch / "ready") << "1";
    for (;;) ::pause();
  });
  ASSERT_TRUE(eventually([&] { return fs::exists(scratch / "ready"); })) << server.wait(std::chrono::milliseconds(10));
  auto file = open_file(scratch / "mnt/sub/large", O_RDONLY);
  ASSERT_TRUE(file) << file.error().what;
  std::atomic<int> outcome{-1};
  std::jthread reader([&] {
    char byte;
    outcome = ::pread(file->get(), &byte, 1, 6 << 20) == 1 ? 0 : errno;
  });
  server.kill();
  EXPECT_EQ(server.wait(), 128 + SIGKILL);
  EXPECT_TRUE(eventually([&] { return outcome == EIO; })) << outcome;

  Buffer got(4096);
  for (uint64_t at = 0; at + 4096 < (8 << 20); at += 65536) {
    ssize_t n = ::pread(file->get(), got.data(), got.size(), static_cast<off_t>(at));
    if (n <= 0) continue;
    EXPECT_TRUE(std::equal(got.begin(), got.begin() + n, oracle_bytes(4, at, got.size()).begin())) << at;
  }
  EXPECT_FALSE(read_file(scratch / "mnt/sub/page"));
  auto warm = read_file(scratch / "mnt/sub/odd");
  ASSERT_TRUE(warm) << warm.error().what;  // what the kernel holds stays readable
  EXPECT_TRUE(to_buffer(as_bytes(*warm)) == oracle_bytes(3, 0, 100001));
}

TEST_F(ErofsTest, AnImageThatIsNoneIsCorrupt) {
  ErofsSource source;
  std::ofstream(scratch / "junk") << std::string(65536, 'x');
  source.primary = *open_file(scratch / "junk", O_RDONLY);
  auto made = daemon::make_erofs_mount(source);
  ASSERT_FALSE(made);
  EXPECT_EQ(made.error().code, Code::kCorrupt) << made.error().what;
}

TEST_F(ErofsTest, MoreDevicesThanTheImageHasAreRefused) {
  ErofsSource source;
  source.primary = *open_file(scratch / "meta", O_RDONLY);
  for (int i = 0; i < 2; ++i) source.devices.push_back(*open_file(scratch / "blob", O_RDONLY));
  auto made = daemon::make_erofs_mount(source);
  ASSERT_FALSE(made);
  EXPECT_EQ(made.error().code, Code::kCorrupt) << made.error().what;
}

}  // namespace
}  // namespace hydrant
