// What survives: engines that end well, engines that do not, and files that are not what a map says.
#include <fcntl.h>

#include "cachefiles/harness.h"

namespace hydrant::cachefiles::test {
namespace {

class Durability : public EngineTest {
 protected:
  void fill(const Opened& o, uint64_t offset, uint64_t size) {
    ASSERT_EQ(handle(o.fd).pwrite(blocks(size, 'w'), offset), static_cast<int64_t>(size));
  }
  void begin_again() {
    stop();
    BO();
  }
  std::string file() { return dir.path() + "/" + files().at(0); }
};

TEST_F(Durability, ACleanEndKeepsEverything) {
  BO();
  { fill(opened("key", 8192), 0, 8192); }
  begin_again();
  auto o = opened("key", 8192);
  EXPECT_TRUE(o.cookie->complete());
  EXPECT_EQ(read_back(*o.cookie, 0, 8192), std::string(8192, 'w'));
}

TEST_F(Durability, DataIsSyncedBeforeItsMapIsWritten) {
  BO();
  auto o = opened("key", 8192);
  fill(o, 0, 4096);
  EXPECT_TRUE(o.cookie->present({0, 4096}));
  EXPECT_EQ(o.cookie->stat().durable_bytes, 0u);
  ASSERT_TRUE(engine().flush());
  EXPECT_EQ(disk.order(), (std::vector<std::string>{"sync", "map"}));
  EXPECT_EQ(o.cookie->stat().durable_bytes, 4096u);
  EXPECT_FALSE(o.cookie->complete());
}

TEST_F(Durability, APowerCutBeforeTheMapForgetsTheBlocks) {
  BO();
  {
    auto o = opened("key", 8192);
    fill(o, 0, 4096);
    ASSERT_TRUE(engine().flush());
    disk.power_is_off = true;
    fill(o, 4096, 4096);
  }
  stop();
  disk.power_is_off = false;
  BO();
  auto o = opened("key", 8192);
  EXPECT_TRUE(o.cookie->present({0, 4096}));
  EXPECT_FALSE(o.cookie->present({4096, 8192}));
}

TEST_F(Durability, AnObjectIsNamedFromBirth) {
  BO();
  auto o = opened("key", 8192);
  EXPECT_EQ(files(), std::vector<std::string>{"cache/Iv/@fd/Dkey"});
}

TEST_F(Durability, AMapNeverVouchesForAnotherFile) {
  BO();
  { fill(opened("key", 8192), 0, 8192); }
  stop();
  // A copy with its attributes, as a backup would restore it: the inode differs.
  std::string copy = "cp --sparse=always --preserve=all '" + file() + "' '" + file() + ".new' && mv '" + file() +
                     ".new' '" + file() + "'";
  ASSERT_EQ(std::system(copy.c_str()), 0);
  BO();
  EXPECT_FALSE(opened("key", 8192).cookie->present({0, 4096}));
}

TEST_F(Durability, AHolePunchedBehindOurBackIsAHole) {
  BO();
  { fill(opened("key", 16384), 0, 16384); }
  stop();
  Fd fd(::open(file().c_str(), O_RDWR));
  ASSERT_EQ(::fallocate(fd.get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 4096, 4096), 0);
  BO();
  auto o = opened("key", 16384);
  EXPECT_TRUE(o.cookie->present({0, 4096}));
  EXPECT_FALSE(o.cookie->present({4096, 8192}));
  EXPECT_TRUE(o.cookie->present({8192, 16384}));
}

TEST_F(Durability, AFailedSyncForgetsWhatItCannotProve) {
  BO();
  auto o = opened("key", 8192);
  fill(o, 0, 8192);
  disk.sync_error = -EIO;
  (void)engine().flush();
  EXPECT_FALSE(o.cookie->present({0, 4096}));
}

TEST_F(Durability, AMapThatCouldNotBeSavedIsSavedTheNextTime) {
  BO();
  auto o = opened("key", 8192);
  fill(o, 0, 8192);
  disk.map_error = ENOSPC;
  ASSERT_TRUE(engine().flush());
  EXPECT_FALSE(o.cookie->complete());
  disk.map_error = 0;
  ASSERT_TRUE(engine().flush());
  EXPECT_TRUE(o.cookie->complete());
}

TEST_F(Durability, ASizeWhoseSyncFailedIsSavedTheNextTime) {
  BO();
  auto o = opened("key", 8192);
  fill(o, 0, 8192);
  ASSERT_TRUE(engine().flush());
  ASSERT_EQ(o.cookie->resize(16384), 0);
  disk.sync_error = -ENOSPC;
  ASSERT_TRUE(engine().flush());
  disk.sync_error = 0;
  auto before = disk.order().size();
  ASSERT_TRUE(engine().flush());
  EXPECT_EQ(disk.order().size(), before + 2);  // sync, map
}

TEST_F(Durability, ARetiredObjectLeavesNothing) {
  BO();
  auto o = opened("key", 8192);
  fill(o, 0, 8192);
  ASSERT_TRUE(engine().flush());
  auto gone = rel(o.cookie, true);
  EXPECT_EQ(next().opcode, proto::Opcode::kClose);
  gone->wait();
  EXPECT_TRUE(files().empty());
  for (auto& entry : std::filesystem::recursive_directory_iterator(dir.path() + "/maps"))
    EXPECT_FALSE(entry.is_regular_file()) << entry.path();
}

TEST_F(Durability, AShrunkObjectKeepsItsBlocksAcrossARestart) {
  BO();
  {
    auto o = opened("key", uint64_t{1} << 43);  // the nominal size of a device that is being filled
    fill(o, 0, 12288);
    EXPECT_EQ(o.cookie->resize(8192), 0);
    EXPECT_EQ(o.cookie->size(), 8192u);
  }
  begin_again();
  EXPECT_TRUE(opened("key", 8192).cookie->complete());
}

TEST_F(Durability, AnInvalidatedObjectIsEmpty) {
  BO();
  auto o = opened("key", 8192);
  fill(o, 0, 8192);
  o.cookie->invalidate();
  EXPECT_TRUE(eventually([&] { return o.cookie->state() == 'A'; }));
  EXPECT_FALSE(o.cookie->present({0, 4096}));
  fill(o, 0, 4096);  // the same handle means the new file
  EXPECT_TRUE(o.cookie->present({0, 4096}));
  EXPECT_EQ(files().size(), 1u);
}

TEST_F(Durability, AnInvalidationThatFailsLeavesNothingToFind) {
  BO();
  auto o = opened("key", 8192);
  fill(o, 0, 8192);
  disk.free_files = 0;  // no new file can be made
  o.cookie->invalidate();
  EXPECT_EQ(next().opcode, proto::Opcode::kClose);
  EXPECT_TRUE(eventually([&] { return o.cookie->state() == '-'; }));
  EXPECT_EQ(files().size(), 0u);
  disk.free_files = 9000;
  auto ready = use(*o.cookie);
  W(copen(next().msg_id, 8192));
  EXPECT_EQ(ready->wait(), 0);
  EXPECT_FALSE(o.cookie->present({0, 4096}));
}

TEST_F(Durability, AnInvalidationDuringTheLookupIsNotLost) {
  BO();
  auto first = opened("key", 8192);
  fill(first, 0, 8192);
  auto gone = rel(first.cookie);
  next();
  gone->wait();
  forget(first.cookie);
  auto c = cookie("key");
  auto ready = use(*c);
  auto open = next();
  c->invalidate();
  W(copen(open.msg_id, 8192));
  EXPECT_EQ(ready->wait(), 0);
  EXPECT_FALSE(c->present({0, 4096}));
}

TEST_F(Durability, ASlowSyncOfOneObjectDelaysNoLookup) {
  options.worker_threads = 1;
  BO();
  auto o = opened("key", 8192);
  fill(o, 0, 4096);
  Promise<int> go_on;
  disk.before_sync = [&] { go_on.wait(); };
  auto gone = rel(o.cookie);
  next();
  ASSERT_TRUE(eventually([&] { return disk.syncing.load() == 1; }));
  opened("other", 4096);
  EXPECT_FALSE(gone->ready());
  go_on.set(1);
  gone->wait();
}

TEST_F(Durability, AConsumersOwnDataIsKeptAndIsDirtyUntilTheCommit) {
  bind_original();
  auto make = [&] { return cookie("key", "v", {.size = 16384}); };
  auto c = make();
  ASSERT_EQ(use(*c)->wait(), 0);
  EXPECT_EQ(c->write(blocks(8192, 'o'), 4096), 8192);
  EXPECT_EQ(c->write(blocks(10, 'o'), 4097), -EINVAL);
  EXPECT_TRUE(c->present({4096, 12288}));
  EXPECT_FALSE(c->present({0, 4096}));
  auto content = [&] {
    char label[64];
    ssize_t size = ::getxattr(file().c_str(), "user.CacheFiles.cache", label, sizeof label);
    return size < 18 ? -1 : int(label[17]);
  };
  EXPECT_EQ(content(), 4);
  rel(c)->wait();
  EXPECT_EQ(content(), 0);
  forget(c);
  c = make();
  ASSERT_EQ(use(*c)->wait(), 0);
  EXPECT_EQ(read_back(*c, 4096, 8192), std::string(8192, 'o'));
  // No room: a range that is partly there is given back and overwritten, one that is not is refused.
  disk.free_blocks = 100;
  EXPECT_EQ(c->write(blocks(4096, 'p'), 0), -ENOBUFS);
  EXPECT_EQ(c->write(blocks(8192, 'p'), 8192), 8192);
  EXPECT_EQ(read_back(*c, 4096, 12288), std::string(4096, 'o') + std::string(8192, 'p'));
  EXPECT_EQ(c->write(blocks(4096, 'q'), 4096), 4096);
}

TEST_F(Durability, TwoEnginesNeverShareARoot) {
  BO();
  EngineOptions other = options;
  auto second = Engine::create(other);
  std::shared_ptr<Channel> control;
  ASSERT_EQ(second->open_channel({}, &control), 0);
  ASSERT_GT(control->write(as_bytes("dir " + dir.path()), caller), 0);
  EXPECT_EQ(control->write(as_bytes("bind ondemand"), caller), -EBUSY);
}

}  // namespace
}  // namespace hydrant::cachefiles::test
