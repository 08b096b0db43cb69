// The specification's transcripts T01 to T53, by number: the channel, bind, the original mode and OPEN. What needs
// another process or a real kernel is elsewhere.
#include <fcntl.h>

#include "cachefiles/harness.h"

namespace hydrant::cachefiles::test {
namespace {

using proto::Opcode;

// --- 12.1 channel and parser

TEST_F(Transcripts, T01_TheSlotIsSingle) {
  ASSERT_EQ(O(), 0);
  std::shared_ptr<Channel> second;
  EXPECT_EQ(engine().open_channel({}, &second), -EBUSY);
}

TEST_F(Transcripts, T02_PrivilegeIsAskedBeforeTheSlot) {
  ASSERT_EQ(O(), 0);
  std::shared_ptr<Channel> second;
  EXPECT_EQ(engine().open_channel({.sys_admin = false}, &second), -EPERM);
}

TEST_F(Transcripts, T03_AnUnboundCacheHasNothingToSay) {
  ASSERT_EQ(O(), 0);
  EXPECT_EQ(R(0), 0);
  EXPECT_EQ(R(4096), 0);
  EXPECT_EQ(P(), 0u);
}

TEST_F(Transcripts, T04_to_T09_CommandsAreParsedInTheKernelsOrder) {
  ASSERT_EQ(O(), 0);
  EXPECT_EQ(W(""), -EOPNOTSUPP);
  EXPECT_EQ(W("\n"), -EINVAL);
  EXPECT_EQ(W(" dir D"), -EOPNOTSUPP);
  EXPECT_EQ(W(std::string_view("dir D\0", 6)), -EINVAL);
  EXPECT_EQ(W(std::string(4096, 'x')), -EOPNOTSUPP);
  std::string longest = "debug 0\n" + std::string(4087, 'x');
  EXPECT_EQ(W(longest), 4095);
  EXPECT_EQ(W("frun 20%\nbogus"), 14);
}

TEST_F(Transcripts, T10_ADirectoryIsGivenOnce) {
  ASSERT_EQ(O(), 0);
  EXPECT_EQ(W("dir"), -EINVAL);
  EXPECT_EQ(W("dir   "), -EINVAL);
  EXPECT_EQ(W("dir D"), 5);
  EXPECT_EQ(W("dir E"), -EEXIST);
}

TEST_F(Transcripts, T11_ATagIsGivenOnce) {
  ASSERT_EQ(O(), 0);
  EXPECT_EQ(W("tag"), -EINVAL);
  EXPECT_EQ(W("tag a"), 5);
  EXPECT_EQ(W("tag b"), -EEXIST);
}

TEST_F(Transcripts, T12_TheDebugMaskTakesAnyBase) {
  ASSERT_EQ(O(), 0);
  EXPECT_EQ(W("debug 0x7"), 9);
  EXPECT_EQ(W("debug"), 5);
  EXPECT_EQ(W("debug 7z"), -EINVAL);
}

TEST_F(Transcripts, T13_RunLimits) {
  ASSERT_EQ(O(), 0);
  EXPECT_EQ(W("frun 5%"), -EINVAL);
  EXPECT_EQ(W("frun 100%"), -EINVAL);
  EXPECT_EQ(W("frun 6%"), 7);
  EXPECT_EQ(W("frun 6"), -EINVAL);
  EXPECT_EQ(W("frun 6% "), -EINVAL);
  EXPECT_EQ(W("frun +6%"), -EINVAL);
  EXPECT_EQ(W("frun 18446744073709551622%"), -EINVAL);  // E1: wraps to 6 in the kernel
}

TEST_F(Transcripts, T14_CullAndStopLimits) {
  ASSERT_EQ(O(), 0);
  EXPECT_EQ(W("fcull 7%"), -EINVAL);
  EXPECT_EQ(W("fcull 6%"), 8);
  EXPECT_EQ(W("fstop 6%"), -EINVAL);
  EXPECT_EQ(W("fstop 0%"), 8);
  EXPECT_EQ(W("fstop %"), 7);
}

TEST_F(Transcripts, T15_T16_CommandsOfABoundCacheBeforeBind) {
  ASSERT_EQ(O(), 0);
  EXPECT_EQ(W("copen 0,0"), -EOPNOTSUPP);
  EXPECT_EQ(W("restore"), -EOPNOTSUPP);
  EXPECT_EQ(W("cull a/b"), -EINVAL);
  EXPECT_EQ(W("cull x"), -EIO);
}

// --- 12.2 bind

TEST_F(Transcripts, T17_T18_BindNeedsADirectory) {
  ASSERT_EQ(O(), 0);
  EXPECT_EQ(W("bind"), -EINVAL);
  EXPECT_EQ(W("bind junk"), -EINVAL);
}

TEST_F(Transcripts, T19_T20_AWrongArgumentLeavesTheModeAlone) {
  ASSERT_EQ(O(), 0);
  W("dir " + dir.path());
  EXPECT_EQ(W("bind junk"), -EINVAL);
  EXPECT_EQ(W("bind ondemand "), -EINVAL);
  EXPECT_EQ(W("bind Ondemand"), -EINVAL);
  EXPECT_EQ(W("bind"), 4);
  EXPECT_EQ(W("restore"), -EOPNOTSUPP);  // original mode
}

TEST_F(Transcripts, T21_ABoundCacheIsBusy) {
  BO();
  EXPECT_EQ(W("bind"), -EBUSY);
  EXPECT_EQ(W("bind junk"), -EBUSY);
}

TEST_F(Transcripts, T22_T23_AFailedBindLeavesItsModeAndTag) {
  ASSERT_EQ(O(), 0);
  std::string missing = dir.path() + "/later";
  W("dir " + missing);
  EXPECT_EQ(W("bind ondemand"), -ENOENT);
  EXPECT_EQ(W("tag t"), -EEXIST);
  std::filesystem::create_directory(missing);
  EXPECT_EQ(W("bind"), 4);
  EXPECT_EQ(W("restore"), 7);  // on-demand mode
}

TEST_F(Transcripts, T24_TheDirectoryIsADirectoryAndNoLink) {
  std::ofstream(dir.path() + "/file") << "x";
  std::filesystem::create_directory(dir.path() + "/real");
  std::filesystem::create_symlink("real", dir.path() + "/link");
  auto bind = [&](std::string path) {
    EXPECT_EQ(O(), 0);
    W("dir " + path);
    int64_t result = W("bind");
    X();
    return result;
  };
  EXPECT_EQ(bind(dir.path() + "/file"), -ENOTDIR);
  EXPECT_EQ(bind(dir.path() + "/link"), -ENOTDIR);
  EXPECT_EQ(bind(dir.path() + "/link/"), 4);
}

TEST_F(Transcripts, T25_CacheMustBeADirectory) {
  std::ofstream(dir.path() + "/cache") << "x";
  ASSERT_EQ(O(), 0);
  W("dir " + dir.path());
  EXPECT_EQ(W("bind"), -EIO);
}

TEST_F(Transcripts, T26_AFullDiskRefusesTheFirstBind) {
  disk.free_blocks = 100;
  ASSERT_EQ(O(), 0);
  W("dir " + dir.path());
  EXPECT_EQ(W("bind"), -ENOBUFS);
  EXPECT_EQ(R(4096), 0);
  EXPECT_TRUE(in());
  EXPECT_TRUE(out());
}

TEST_F(Transcripts, T27_T28_TheStateTextShowsTheThresholds) {
  bind_original();
  int64_t size = R(4096);
  EXPECT_EQ(size, static_cast<int64_t>(text().size()));
  EXPECT_EQ(text(), "cull=0 frun=2bc fcull=1f4 fstop=64 brun=11170 bcull=c350 bstop=2710 freleased=0 breleased=0");
}

TEST_F(Transcripts, T29_AnIdleOnDemandCache) {
  BO();
  EXPECT_EQ(Rd(), 0);
  EXPECT_EQ(P(), 0u);
  EXPECT_EQ(W("copen 0,1"), -EINVAL);
}

// --- 12.3 original mode

TEST_F(Transcripts, T30_T31_ReleasedObjectsAreCountedOnce) {
  bind_original();
  for (const char* key : {"one", "two"}) {
    auto c = cookie(key);
    ASSERT_EQ(use(*c)->wait(), 0);
    rel(c)->wait();
  }
  EXPECT_TRUE(in());
  EXPECT_EQ(R(10), -EMSGSIZE);
  EXPECT_GT(R(4096), 0);
  EXPECT_NE(text().find("freleased=0"), std::string::npos) << text();
  EXPECT_EQ(P(), 0u);
}

TEST_F(Transcripts, T32_T33_T34_CullingHasHysteresis) {
  bind_original();
  disk.free_blocks = 40'000;  // under bcull, over bstop
  auto c = cookie("key");
  ASSERT_EQ(use(*c)->wait(), 0);
  EXPECT_TRUE(in() && out());
  ASSERT_GT(R(4096), 0);
  EXPECT_TRUE(text().starts_with("cull=1"));
  EXPECT_EQ(P(), unsigned{EPOLLOUT});
  disk.free_blocks = 60'000;  // between cull and run
  ASSERT_GT(R(4096), 0);
  EXPECT_TRUE(text().starts_with("cull=1"));
  disk.free_blocks = 70'000;  // at run
  ASSERT_GT(R(4096), 0);
  EXPECT_TRUE(text().starts_with("cull=0"));
  EXPECT_EQ(P(), 0u);
}

TEST_F(Transcripts, T35_T36_T37_T38_CullAndInuse) {
  bind_original();
  auto c = cookie("key");
  ASSERT_EQ(use(*c)->wait(), 0);
  Fd fanout(::open((dir.path() + "/cache/Iv/@fd").c_str(), O_RDONLY | O_DIRECTORY));
  Fd volume(::open((dir.path() + "/cache").c_str(), O_RDONLY | O_DIRECTORY));
  ASSERT_TRUE(fanout && volume);
  caller.cwd = fanout.get();
  EXPECT_EQ(W("inuse Dkey"), -EBUSY);
  EXPECT_EQ(W("cull Dkey"), -EBUSY);
  rel(c)->wait();
  EXPECT_EQ(W("inuse Dkey"), 10);
  EXPECT_EQ(W("cull Dkey"), 9);
  EXPECT_EQ(files().size(), 0u);
  EXPECT_EQ(W("cull Dkey"), -ENOENT);
  EXPECT_EQ(W("cull ."), -EIO);
  EXPECT_EQ(W("cull "), -EIO);
  caller.cwd = volume.get();
  EXPECT_EQ(W("cull Iv"), -EBUSY);
  forget(c);
  volumes.clear();
  settle();
  ASSERT_TRUE(eventually([&] { return W("inuse Iv") == 8; }));
  EXPECT_EQ(W("cull Iv"), 7);
  auto grave = std::filesystem::directory_iterator(dir.path() + "/graveyard");
  ASSERT_NE(grave, std::filesystem::directory_iterator());
  EXPECT_EQ(grave->path().filename().string().size(), 16u);
  Fd outside(::open(dir.path().c_str(), O_RDONLY | O_DIRECTORY));
  caller.cwd = outside.get();
  EXPECT_EQ(W("cull graveyard"), -EINVAL);  // E2
}

// --- 12.4 OPEN

TEST_F(Transcripts, T39_T41_OpenIsDelivered) {
  BO();
  auto c = cookie("key");
  auto ready = use(*c);
  ASSERT_TRUE(wait_in());
  EXPECT_EQ(R(1024), 37);
  auto open = message();
  EXPECT_EQ(open.msg_id, 0u);
  EXPECT_EQ(open.opcode, Opcode::kOpen);
  EXPECT_EQ(open.object_id, 1u);
  EXPECT_EQ(open.volume_key, "v");
  EXPECT_EQ(as_text(open.cookie_key), "key");
  EXPECT_FALSE(in());
  EXPECT_EQ(Rd(), 0);
}

TEST_F(Transcripts, T40_AShortBufferLosesNothing) {
  BO();
  auto c = cookie("key");
  auto ready = use(*c);
  ASSERT_TRUE(wait_in());
  EXPECT_EQ(R(36), -EMSGSIZE);
  EXPECT_TRUE(in());
  EXPECT_EQ(R(1024), 37);
}

TEST_F(Transcripts, T42_T43_S3_CopenOpens) {
  BO();
  auto c = cookie("key");
  auto ready = use(*c);
  int fd = next().fd;
  EXPECT_EQ(handle(fd).pwrite(blocks(4096), 0), -ENOBUFS);
  EXPECT_EQ(W("copen 0,8192"), 12);
  EXPECT_EQ(ready->wait(), 0);
  EXPECT_EQ(c->state(), 'A');
  EXPECT_EQ(c->size(), 8192u);
  EXPECT_EQ(handle(fd).pwrite(blocks(4096), 0), 4096);
  EXPECT_EQ(W("copen 0,8192"), -EINVAL);
}

TEST_F(Transcripts, T44_AnUndeliveredOpenCannotBeAnswered) {
  BO();
  auto c = cookie("key");
  auto ready = use(*c);
  ASSERT_TRUE(wait_in());
  EXPECT_EQ(W("copen 0,1"), -EINVAL);
  EXPECT_EQ(R(1024), 37);
}

TEST_F(Transcripts, T45_T46_S5_RefusedOpensFailTheLookup) {
  BO();
  auto c = cookie("key");
  auto ready = use(*c);
  next();
  EXPECT_EQ(W("copen 0,-2"), 10);
  EXPECT_EQ(ready->wait(), -ENOBUFS);
  EXPECT_EQ(W("copen 0,-2"), -EINVAL);
  auto d = cookie("other");
  ready = use(*d);
  next();
  EXPECT_EQ(W("copen 1,-4096"), -EINVAL);
  EXPECT_EQ(ready->wait(), -ENOBUFS);
}

TEST_F(Transcripts, T47_T48_S6_MalformedAnswers) {
  BO();
  auto c = cookie("key");
  auto ready = use(*c);
  next();
  EXPECT_EQ(W("copen 0,"), -EINVAL);
  EXPECT_EQ(ready->wait(), -ENOBUFS);
  auto d = cookie("other");
  ready = use(*d);
  next();
  EXPECT_EQ(W("copen 1 ,5"), -EINVAL);
  EXPECT_EQ(W("copen 1"), -EINVAL);
  EXPECT_EQ(W("copen 99999999999999999999,1"), -ERANGE);
  EXPECT_FALSE(ready->ready());
  EXPECT_EQ(W("copen 0x1,+4096"), 15);
  EXPECT_EQ(ready->wait(), 0);
}

TEST_F(Transcripts, T49_S18_CopenAfterTheHandleIsClosed) {
  BO();
  auto c = cookie("key");
  auto ready = use(*c);
  next();
  daemon.table.clear();
  EXPECT_EQ(W("copen 0,8192"), 12);
  EXPECT_EQ(ready->wait(), -ENOBUFS);
}

TEST_F(Transcripts, T50_AConsumerMustTakeTheSize) {
  BO();
  auto c = cookie("key", "v", {.advice = 0});
  EXPECT_EQ(use(*c)->wait(), -ENOBUFS);
  EXPECT_EQ(Rd(), 0);
}

TEST_F(Transcripts, T51_AFullDescriptorTableFailsTheOpen) {
  BO();
  auto c = cookie("key");
  auto ready = use(*c);
  ASSERT_TRUE(wait_in());
  daemon.full = true;
  EXPECT_EQ(Rd(), -EMFILE);
  EXPECT_EQ(ready->wait(), -ENOBUFS);
  EXPECT_EQ(Rd(), 0);
  daemon.full = false;
  ready = use(*c);
  EXPECT_EQ(next().object_id, 2u);  // the failed delivery has used one up
}

TEST_F(Transcripts, T52_S15_ABadAddressFailsTheOpenAndLeaksNothing) {
  BO();
  auto c = cookie("key");
  auto ready = use(*c);
  ASSERT_TRUE(wait_in());
  daemon.bad_address = true;
  EXPECT_EQ(Rd(), -EFAULT);
  EXPECT_EQ(daemon.released, 1);
  EXPECT_EQ(ready->wait(), -ENOBUFS);
  daemon.bad_address = false;
  ready = use(*c);  // a later use starts over, with a fresh id
  EXPECT_EQ(next().object_id, 2u);
}

TEST_F(Transcripts, T53_AnotherSizeReplacesTheFileUnderTheSameHandle) {
  BO();
  auto a = opened("key", 8192);
  ASSERT_EQ(handle(a.fd).pwrite(blocks(8192), 0), 8192);
  auto gone = rel(a.cookie);
  EXPECT_EQ(next().opcode, Opcode::kClose);
  gone->wait();
  auto b = opened("key", 4096);
  EXPECT_FALSE(b.cookie->present({0, 4096}));
  EXPECT_EQ(Rd(), 0);  // one OPEN only
  EXPECT_EQ(handle(b.fd).pwrite(blocks(4096), 0), 4096);
  EXPECT_TRUE(b.cookie->present({0, 4096}));
}

}  // namespace
}  // namespace hydrant::cachefiles::test
