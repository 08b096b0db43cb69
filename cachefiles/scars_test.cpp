// Defects that the kernel's implementation had (the specification's S numbers) and that must not come back.
// Others are transcripts, whose names carry both numbers, or races (stress_test.cpp).
#include <fcntl.h>
#include <spawn.h>
#include <sys/wait.h>

#include <set>

#include "cachefiles/harness.h"

namespace hydrant::cachefiles::test {
namespace {

class Scars : public EngineTest {};

TEST_F(Scars, S1_AFailedOpenLeavesNoMark) {
  BO();
  auto o = opened("key", 8192);
  auto gone = rel(o.cookie);
  next();
  gone->wait();
  forget(o.cookie);
  auto c = cookie("key");
  auto ready = use(*c);
  W(copen(next().msg_id, -1));
  EXPECT_EQ(ready->wait(), -ENOBUFS);
  Fd fanout(::open((dir.path() + "/cache/Iv/@fd").c_str(), O_RDONLY | O_DIRECTORY));
  caller.cwd = fanout.get();
  EXPECT_EQ(W("inuse Dkey"), 10);
  daemon.table.clear();
  ready = use(*c);
  auto open = next();
  W(copen(open.msg_id, 8192));
  EXPECT_EQ(ready->wait(), 0);
}

TEST_F(Scars, S7_HighIdsAreNotStarved) {
  BO();
  auto o = opened("key", 1 << 20);
  std::vector<Outcome> waits;
  std::vector<std::shared_ptr<Cookie::Wait>> held;
  for (int i = 0; i < 8; ++i) {
    waits.push_back(C(*o.cookie, kBlock * i, kBlock));
    held.push_back(last_wait);
  }
  std::set<uint32_t> seen;
  for (int i = 0; i < 8; ++i) {
    seen.insert(next().msg_id);
    W("restore");  // low ids become deliverable again and again
  }
  EXPECT_EQ(seen.size(), 8u);
}

TEST_F(Scars, S8_ADeliveredRequestDoesNotKeepPollersBusy) {
  BO();
  auto o = opened("key", 8192);
  auto data = C(*o.cookie, 0, 4096);
  auto read = next();
  for (int i = 0; i < 10; ++i) {
    EXPECT_FALSE(in());
    EXPECT_EQ(Rd(), 0);
  }
  auto more = C(*o.cookie, 4096, 4096);
  EXPECT_TRUE(in());
}

TEST_F(Scars, S14_TheObjectOutlivesADeliveryThatLosesIt) {
  BO();
  auto o = opened("key", 8192);
  auto data = C(*o.cookie, 0, 4096);
  // In the middle of the copy the daemon closes its handle and the consumer leaves.
  daemon.during_delivery = [&] {
    daemon.table.clear();
    o.cookie->relinquish(true, {});
    cookies.clear();
    o.cookie.reset();
    last_wait.reset();
  };
  EXPECT_EQ(Rd(), 32);
  EXPECT_EQ(message().object_id, o.open.object_id);
  EXPECT_EQ(data->wait(), -EIO);
  volumes.clear();
  settle();
}

TEST_F(Scars, S19_AReopenThatComesToNothingIsTriedAgain) {
  BO();
  auto o = opened("key", 8192);
  daemon.table.clear();
  auto data = C(*o.cookie, 0, 4096);
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(Rd(), 0);
    auto open = next();
    ASSERT_EQ(open.opcode, proto::Opcode::kOpen);
    daemon.table.clear();  // closed before the answer
    EXPECT_GT(W(copen(open.msg_id, 8192)), 0);
    EXPECT_TRUE(in());  // the READ is deliverable: it asks for the next one
  }
  EXPECT_FALSE(data->ready());
}

TEST_F(Scars, S22_AStaleAnswerFindsNoNewRequest) {
  BO();
  auto c = cookie("key");
  auto ready = use(*c);
  auto open = next();
  rel(c)->wait();
  forget(c);
  auto d = cookie("other");
  ready = use(*d);
  auto fresh = next();
  EXPECT_NE(fresh.msg_id, open.msg_id);
  EXPECT_EQ(W(copen(open.msg_id, 4096)), -EINVAL);
  EXPECT_FALSE(ready->ready());
}

TEST_F(Scars, S24_ADroppedObjectFailsItsRequests) {
  BO();
  auto o = opened("key", 8192);
  auto data = C(*o.cookie, 0, 4096);
  next();
  auto gone = rel(o.cookie);
  EXPECT_EQ(next().opcode, proto::Opcode::kClose);
  gone->wait();
  EXPECT_EQ(data->wait(), -EIO);
}

TEST_F(Scars, S30_OneCloseForARelinquishedCookie) {
  BO();
  auto o = opened("key", 8192);
  auto gone = rel(o.cookie);
  EXPECT_EQ(next().object_id, o.open.object_id);
  gone->wait();
  EXPECT_EQ(Rd(), 0);
}

TEST_F(Scars, S31_TheOriginalModeAsksNobody) {
  bind_original();
  auto c = cookie("key", "v", {.size = 8192});
  ASSERT_EQ(use(*c)->wait(), 0);
  EXPECT_EQ(C(*c, 0, 4096)->wait(), -EIO);  // "download" is the consumer's business
  EXPECT_EQ(W("copen 0,1"), -EOPNOTSUPP);
  EXPECT_EQ(engine().listing().caches.at(0).requests, 0u);
  rel(c)->wait();
}

TEST_F(Scars, S35_AVolumeWithoutALabelIsUnusableAtTheFirstAttempt) {
  std::filesystem::create_directories(dir.path() + "/cache/Iv");
  BO();
  EXPECT_EQ(use(*cookie("key"))->wait(), -ENOBUFS);
  EXPECT_TRUE(std::filesystem::exists(dir.path() + "/cache/Iv"));
}

TEST_F(Scars, S37_AFailedBindLeaksNothing) {
  std::ofstream(dir.path() + "/graveyard") << "x";
  ASSERT_EQ(O(), 0);
  W("dir " + dir.path());
  auto descriptors = [] {
    auto all = std::filesystem::directory_iterator("/proc/self/fd");
    return std::distance(begin(all), end(all));
  };
  EXPECT_EQ(W("bind ondemand"), -EIO);
  auto before = descriptors();
  for (int i = 0; i < 20; ++i) EXPECT_EQ(W("bind ondemand"), -EIO);
  EXPECT_EQ(descriptors(), before);
  std::filesystem::remove(dir.path() + "/graveyard");
  EXPECT_EQ(W("bind ondemand"), 13);
}

TEST_F(Scars, S38_AnIdleCookieIsDiscardedAndComesBack) {
  options.maintenance_interval = std::chrono::milliseconds(10);
  options.discard_after = std::chrono::milliseconds(1);
  BO();
  auto o = opened("key", 8192);
  handle(o.fd).pwrite(blocks(4096, 'k'), 0);
  auto data = C(*o.cookie, 4096, 4096);  // an access in flight postpones it
  auto read = next();
  o.cookie->unuse();
  EXPECT_EQ(read.opcode, proto::Opcode::kRead);
  EXPECT_EQ(o.cookie->state(), 'A');
  handle(o.fd).pwrite(blocks(4096, 'k'), 4096);
  cr(o.fd, read.msg_id);
  EXPECT_EQ(data->wait(), 0);
  EXPECT_EQ(next().opcode, proto::Opcode::kClose);
  EXPECT_TRUE(eventually([&] { return o.cookie->state() == '-'; }));
  auto ready = use(*o.cookie);
  W(copen(next().msg_id, 8192));
  EXPECT_EQ(ready->wait(), 0);
  EXPECT_EQ(read_back(*o.cookie, 0, 8192), std::string(8192, 'k'));
}

TEST_F(Scars, S39_TwoCookiesOfANewVolumeBothProceed) {
  BO();
  auto a = cookie("a"), b = cookie("b");
  auto first = use(*a), second = use(*b);
  for (int i = 0; i < 2; ++i) W(copen(next().msg_id, 4096));
  EXPECT_EQ(first->wait(), 0);
  EXPECT_EQ(second->wait(), 0);
}

TEST_F(Scars, S40_AFileThatCannotBeOpenedLeavesNothingBehind) {
  BO();
  { opened("key", 4096); }
  stop();
  // A program that runs cannot be opened for writing.
  std::string path = dir.path() + "/" + files().at(0);
  std::filesystem::copy_file("/bin/cat", path, std::filesystem::copy_options::overwrite_existing);
  std::filesystem::permissions(path, std::filesystem::perms::owner_all);
  int ends[2];
  ASSERT_EQ(::pipe2(ends, O_CLOEXEC), 0);
  Fd from(ends[0]), to(ends[1]);
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, from.get(), 0);
  char* arguments[] = {path.data(), nullptr};
  pid_t child = 0;
  ASSERT_EQ(::posix_spawn(&child, path.c_str(), &actions, nullptr, arguments, nullptr), 0);
  posix_spawn_file_actions_destroy(&actions);

  BO();
  auto c = cookie("key");
  EXPECT_EQ(use(*c)->wait(), -ENOBUFS);
  Fd fanout(::open((dir.path() + "/cache/Iv/@fd").c_str(), O_RDONLY | O_DIRECTORY));
  caller.cwd = fanout.get();
  EXPECT_EQ(W("inuse Dkey"), 10);
  auto descriptors = [] {
    auto all = std::filesystem::directory_iterator("/proc/self/fd");
    return std::distance(begin(all), end(all));
  };
  ASSERT_TRUE(eventually([&] { return c->state() == '-'; }));
  auto before = descriptors();
  for (int i = 0; i < 5; ++i) {
    EXPECT_EQ(use(*c)->wait(), -ENOBUFS);
    ASSERT_TRUE(eventually([&] { return c->state() == '-'; }));
  }
  EXPECT_EQ(descriptors(), before);
  to.reset();
  int status;
  ::waitpid(child, &status, 0);
}

TEST_F(Scars, S41_AVolumeBindsToTheCacheThatLives) {
  BO();
  auto o = opened("key", 8192);
  daemon.table.clear();
  X();
  EXPECT_EQ(o.cookie->state(), '-');
  ASSERT_EQ(O(), 0);
  W("dir " + dir.path());
  W("tag other");
  ASSERT_EQ(W("bind ondemand"), 13);
  auto ready = use(*o.cookie);
  W(copen(next().msg_id, 8192));
  EXPECT_EQ(ready->wait(), 0);
}

TEST_F(Scars, S42_AWriteReportsBytesOrAnErrorAndNothingElse) {
  BO();
  auto o = opened("key", 1 << 20);
  EXPECT_EQ(handle(o.fd).pwrite({}, 0), 0);
  EXPECT_EQ(handle(o.fd).pwrite(blocks(1), 0), 1);
  EXPECT_EQ(handle(o.fd).pwrite(blocks(4097), 4096), 4097);
  EXPECT_EQ(handle(o.fd).write(blocks(8192)), 8192);
  set_error_injection(1);
  EXPECT_EQ(handle(o.fd).pwrite(blocks(4096), 0), -ENOSPC);
  set_error_injection(2);
  EXPECT_EQ(handle(o.fd).pwrite(blocks(4096), 0), -EIO);
  EXPECT_EQ(handle(o.fd).write(blocks(4096)), -EIO);
}

TEST_F(Scars, S43_AnOpenThatCouldNotBeMadeLeavesTheObjectClosed) {
  BO();
  auto o = opened("key", 8192);
  auto c = cookie("other");
  disk.error = -EIO;
  EXPECT_EQ(handle(o.fd).pwrite(blocks(4096), 0), -ENOBUFS);  // the cache dies
  disk.error = 0;
  EXPECT_EQ(use(*c)->wait(), -EIO);
  daemon.table.clear();
  X();
  BO();
  auto ready = use(*c);  // the same cookie, as new
  W(copen(next().msg_id, 8192));
  EXPECT_EQ(ready->wait(), 0);
}

TEST_F(Scars, S45_ALabelIsRefusedWhenItIsGiven) {
  ASSERT_EQ(O(), 0);
  W("dir " + dir.path());
  EXPECT_EQ(W("secctx"), -EINVAL);
  EXPECT_EQ(W("secctx system_u:system_r:cachefiles_kernel_t:s0"), -EOPNOTSUPP);
  EXPECT_EQ(W("bind ondemand"), 13);
}

// Spec 6.12, the last rows; the others are transcripts.
TEST_F(Scars, AHandleKeptAfterItsCloseWritesNowhereAndHarmsNobody) {
  BO();
  auto o = opened("key", 8192);
  auto gone = rel(o.cookie);
  ASSERT_EQ(next().opcode, proto::Opcode::kClose);
  gone->wait();
  EXPECT_EQ(handle(o.fd).pwrite(blocks(4096), 0), -ENOBUFS);
  EXPECT_EQ(handle(o.fd).lseek(0, SEEK_SET), -ENOBUFS);
  forget(o.cookie);
  auto again = opened("key", 8192);  // the same object, a handle of its own
  EXPECT_NE(again.open.object_id, o.open.object_id);
  auto data = C(*again.cookie, 0, 4096);
  auto read = next();
  EXPECT_EQ(cr(o.fd, read.msg_id), -EINVAL);
  EXPECT_EQ(handle(o.fd).pwrite(blocks(4096), 0), -ENOBUFS);
  EXPECT_EQ(handle(again.fd).pwrite(blocks(4096), 0), 4096);
  EXPECT_EQ(cr(again.fd, read.msg_id), 0);
  EXPECT_EQ(data->wait(), 0);
  forget(again.cookie);
  daemon.table.erase(again.fd);
  channel.reset();
  std::shared_ptr<Channel> other;
  EXPECT_EQ(engine().open_channel({}, &other), -EBUSY);  // the old handle pins the cache
  daemon.table.clear();
  EXPECT_EQ(engine().open_channel({}, &other), 0);
}

TEST_F(Scars, E9_WhatHasNoLabelIsReplacedWhereThatIsWanted) {
  options.replace_unlabelled = true;
  BO();
  { opened("key", 4096); }
  stop();
  ASSERT_EQ(::removexattr((dir.path() + "/" + files().at(0)).c_str(), "user.CacheFiles.cache"), 0);
  BO();
  opened("key", 4096);
  stop();
  ASSERT_EQ(::removexattr((dir.path() + "/" + files().at(0)).c_str(), "user.CacheFiles.cache"), 0);
  BO();
  opened("key", 4096);
  stop();
  // A cut between the making of a volume's directory and its label.
  ASSERT_EQ(::removexattr((dir.path() + "/cache/Iv").c_str(), "user.CacheFiles.cache"), 0);
  BO();
  opened("key", 4096);
  stop();
  ASSERT_EQ(::removexattr((dir.path() + "/" + files().at(0)).c_str(), "user.CacheFiles.cache"), 0);
  options.replace_unlabelled = false;
  BO();
  auto ready = use(*cookie("key"));
  W(copen(next().msg_id, 4096));
  EXPECT_EQ(ready->wait(), -ENOBUFS);
}

TEST_F(Scars, R17_KeysOfOneNameExcludeEachOther) {
  BO();
  auto o = opened("\x80", 4096);
  EXPECT_EQ(use(*cookie(std::string("\x80\0", 2)))->wait(), -ENOBUFS);
}

TEST_F(Scars, S31_InOriginalModeAHoleIsAnErrorAtOnce) {
  like_the_kernel();
  bind_original();
  auto object = cookie("key");
  EXPECT_EQ(use(*object)->wait(), 0);
  EXPECT_EQ(C(*object, 0, 4096)->wait(), -EIO);  // no daemon would ever read the request
}

TEST_F(Scars, SeekingOnAHandleMeetsNoInjectedError) {
  BO();
  auto o = opened("key", 8192);
  set_error_injection(2);
  EXPECT_EQ(handle(o.fd).lseek(0, SEEK_SET), 0);
}

}  // namespace
}  // namespace hydrant::cachefiles::test
