#include "base/mount_info.h"

#include <gtest/gtest.h>

namespace hydrant {
namespace {

TEST(MountInfo, TakesWhatStandsBeforeAndAfterTheDash) {
  auto mounts = parse_mountinfo(
      "36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 shared:7 - ext3 /dev/root rw,errors=continue\n"
      "40 36 0:52 / /a\\040b\\134c ro - fuse.hydrant-blobs hydrant rw\n");
  ASSERT_EQ(mounts.size(), 2u);
  EXPECT_EQ(mounts[0].id, 36u);
  EXPECT_EQ(mounts[0].device, "98:0");
  EXPECT_EQ(mounts[0].path, "/mnt2");
  EXPECT_EQ(mounts[0].type, "ext3");
  EXPECT_EQ(mounts[0].source, "/dev/root");
  EXPECT_EQ(mounts[1].path, "/a b\\c");
  EXPECT_EQ(mounts[1].type, "fuse.hydrant-blobs");
}

TEST(MountInfo, LeavesOutLinesOfAnotherForm) {
  EXPECT_TRUE(parse_mountinfo("").empty());
  EXPECT_TRUE(parse_mountinfo("x\n\n1 2 3\n7 6 0:1 / /mnt ro shared:1\n").empty());
}

TEST(MountInfo, TheLastMountAtAPathIsOnTop) {
  auto mounts = parse_mountinfo("1 0 0:1 / /m rw - tmpfs a rw\n2 1 0:2 / /m rw - erofs b ro\n");
  ASSERT_NE(find_mount(mounts, "/m"), nullptr);
  EXPECT_EQ(find_mount(mounts, "/m")->type, "erofs");
  EXPECT_EQ(find_mount(mounts, "/n"), nullptr);
}

}  // namespace
}  // namespace hydrant
