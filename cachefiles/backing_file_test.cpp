// A backing file against its disk: what happens between the steps of a save.
#include "cachefiles/backing_file.h"

#include <fcntl.h>
#include <sys/stat.h>

#include "base/file.h"
#include "cachefiles/harness.h"

namespace hydrant::cachefiles::test {
namespace {

class BackingFileTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!dir.supports_attributes()) GTEST_SKIP() << "SKIPPED: " << dir.path() << " has no user.* extended attributes";
    Fd fd(::open((dir.path() + "/file").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
    struct stat stat;
    ASSERT_EQ(::fstat(fd.get(), &stat), 0);
    file.emplace(descriptors, std::move(fd), InodeId::of(stat), Presence::kContentMap, kBlock);
    ASSERT_EQ(file->make_identity(), 0);
  }
  int save() {
    return file->save_map(disk, dir.path(), [] { return 2 * kBlock; });
  }

  Scratch dir;
  FakeDisk disk;
  Descriptors descriptors{16};
  std::optional<BackingFile> file;
  const Buffer block = Buffer(kBlock, std::byte('b'));
};

// A resize sets the size, marks the file unsaved and claims it, in this order; a save that read the size before the
// claim became possible would keep the old size with nothing queued.
TEST_F(BackingFileTest, AResizeAfterASaveReadTheSizeCanQueueTheFileAgain) {
  ASSERT_EQ(file->write(disk, block, 0), int64_t{kBlock});
  ASSERT_TRUE(file->claim_saving());
  bool claimed = false;
  ASSERT_EQ(file->save_map(disk, dir.path(),
                           [&] {
                             file->touch();
                             claimed = file->claim_saving();
                             return kBlock;
                           }),
            0);
  EXPECT_TRUE(claimed);
  EXPECT_TRUE(file->has_unsaved());
}

TEST_F(BackingFileTest, AFailedSaveLeavesTheFileUnsaved) {
  ASSERT_EQ(file->write(disk, block, 0), int64_t{kBlock});
  disk.sync_error = -ENOSPC;
  EXPECT_EQ(save(), -ENOSPC);
  EXPECT_TRUE(file->has_unsaved());
  EXPECT_FALSE(file->present({0, kBlock}));
}

TEST_F(BackingFileTest, ASyncThatFailsBetweenBytesAndBitsRefusesTheWrite) {
  ASSERT_EQ(file->write(disk, block, 0), int64_t{kBlock});
  ASSERT_EQ(save(), 0);
  ASSERT_EQ(file->write(disk, block, 2 * kBlock), int64_t{kBlock});
  disk.after_write = [&] {
    disk.sync_error = -ENOSPC;
    EXPECT_EQ(save(), -ENOSPC);
    disk.sync_error = 0;
    EXPECT_EQ(save(), 0);  // the system reports a failure once
  };
  EXPECT_EQ(file->write(disk, block, kBlock), -ENOBUFS);
  EXPECT_TRUE(file->present({0, kBlock}));
  EXPECT_FALSE(file->present({kBlock, 2 * kBlock}));
  EXPECT_FALSE(file->present({2 * kBlock, 3 * kBlock}));
  EXPECT_EQ(file->write(disk, block, kBlock), int64_t{kBlock});
  EXPECT_TRUE(file->present({0, 2 * kBlock}));
}

}  // namespace
}  // namespace hydrant::cachefiles::test
