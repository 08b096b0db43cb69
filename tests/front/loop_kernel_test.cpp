// Loop devices of the real kernel.
#include <gtest/gtest.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include <fstream>

#include "base/file.h"
#include "base/loop_device.h"
#include "tests/front/kernel_test.h"

namespace hydrant {
namespace {

constexpr uint64_t kSize = 5 * 4096;

std::string backing_of(const Fd& device) {
  struct stat status {};
  EXPECT_EQ(::fstat(device.get(), &status), 0);
  return "/sys/block/loop" + std::to_string(minor(status.st_rdev)) + "/loop/backing_file";
}

class LoopTest : public ::testing::Test {
 protected:
  void SetUp() override {
    REQUIRE_MOUNTS();
    Buffer bytes = testing::oracle_bytes(9, 0, kSize);
    std::ofstream(scratch / "file", std::ios::binary).write(reinterpret_cast<const char*>(bytes.data()), kSize);
    auto file = open_file(scratch / "file", O_RDONLY);
    auto probe = attach_loop(*file);
    if (!probe && probe.error().code == Code::kUnsupported) GTEST_SKIP() << "NOT RUN: " << probe.error().what;
    ASSERT_TRUE(probe) << probe.error().what;
  }
  testing::ScratchDir scratch;
};

TEST_F(LoopTest, ItIsTheFileReadOnlyInBlocks) {
  auto device = attach_loop(*open_file(scratch / "file", O_RDONLY));
  ASSERT_TRUE(device) << device.error().what;
  uint64_t size = 0;
  int block = 0, read_only = 0;
  EXPECT_EQ(::ioctl(device->get(), BLKGETSIZE64, &size), 0);
  EXPECT_EQ(::ioctl(device->get(), BLKSSZGET, &block), 0);
  EXPECT_EQ(::ioctl(device->get(), BLKROGET, &read_only), 0);
  EXPECT_EQ(size, kSize);
  EXPECT_EQ(block, 4096);
  EXPECT_EQ(read_only, 1);
  Buffer got(kSize);
  EXPECT_TRUE(pread_exact(device->get(), got, 0));
  EXPECT_TRUE(got == testing::oracle_bytes(9, 0, kSize));
}

TEST_F(LoopTest, ItGoesWithItsLastUserHoweverThatEnds) {
  auto device = attach_loop(*open_file(scratch / "file", O_RDONLY));
  ASSERT_TRUE(device);
  const std::string backing = backing_of(*device);
  EXPECT_EQ(*read_file(backing), scratch / "file\n");
  testing::Child user([]() -> int {
    for (;;) ::pause();
  });
  device->reset();
  EXPECT_EQ(*read_file(backing), scratch / "file\n");
  user.kill();
  EXPECT_EQ(user.wait(), 128 + SIGKILL);
  EXPECT_TRUE(testing::eventually([&] { return read_file(backing).value_or("") != scratch / "file\n"; }));
}

}  // namespace
}  // namespace hydrant
