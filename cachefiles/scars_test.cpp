// Defects that the kernel's implementation had (the specification's S numbers) and that must not come back.
// S5, S6, S15, S16, S18, S21, S26 to S28, S32 to S34 and S44 are the transcripts T46, T47, T52, T75, T49, T62, T72,
// T78, T77, T66, T66, T66 and T56.
#include <fcntl.h>

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

TEST_F(Scars, R17_KeysOfOneNameExcludeEachOther) {
  BO();
  auto o = opened("\x80", 4096);
  EXPECT_EQ(use(*cookie(std::string("\x80\0", 2)))->wait(), -ENOBUFS);
}

}  // namespace
}  // namespace hydrant::cachefiles::test
