// What poll, select and epoll say of a device: the masks of the protocol, level-triggered, beside other descriptors.
#include <sys/epoll.h>

#include <csignal>
#include <set>

#include "tests/shim/client.h"

namespace hydrant::shim_test {
namespace {

TEST_F(Shim, PollShowsWhatTheProtocolSays) {
  open();
  EXPECT_EQ(poll(), "0 0");  // T03: never writable
  EXPECT_EQ(poll("ppoll"), "0 0");
  write("dir " + root_);
  write("bind ondemand");
  EXPECT_EQ(poll(), "0 0");
  Object object = use("key");
  for (std::string how : {"poll", "ppoll"}) EXPECT_EQ(poll(how, 30000), "1 1") << how;
  EXPECT_EQ(poll(), "1 1") << "until it is read";
  EXPECT_EQ(text("poll poll 0 3 4"), "0 0") << "IN was not asked for";
  EXPECT_EQ(text("poll poll 0 3 0"), "0 0");
  EXPECT_EQ(text("poll poll 0 3 0x45"), "1 1") << "no RDNORM (spec 2.6)";
  read();
  EXPECT_EQ(poll(), "0 0");
  EXPECT_EQ(write("restore"), 7);
  EXPECT_EQ(poll(), "1 1") << "T76";
  EXPECT_EQ(read().result, -EEXIST);  // T75
  EXPECT_NE(object.active->wait(), 0);
}

TEST_F(Shim, OutMeansPleaseCull) {
  bind("");
  EXPECT_EQ(poll(), "0 0");
  for (int i = 0; i < 3; ++i) {
    disk_.free_blocks = 30'000;  // cull at 50 000
    EXPECT_EQ(read("read", 4096).result > 0, true) << "which checks the space";
    EXPECT_EQ(poll(), "1 4") << "the state was read: OUT alone (T33)";
    EXPECT_EQ(text("poll poll 0 3 1"), "0 0");
    disk_.free_blocks = 900'000;
    read("read", 4096);
    EXPECT_EQ(poll(), "0 0") << "T34";
  }
}

TEST_F(Shim, OnDemandOutComesFromAWrite) {
  bind();
  std::string handle;
  Object object = opened("key", 1 << 20, &handle);
  disk_.free_blocks = 30'000;
  EXPECT_EQ(call("write pwrite " + handle + " 0 *4096"), 4096);
  EXPECT_EQ(poll("poll", 30000), "1 4");  // T80
  EXPECT_EQ(read().result, 0);
  EXPECT_EQ(poll(), "1 4") << "still";
  auto filled = ensure(object, 8192, 4096);
  EXPECT_EQ(text("poll poll 30000 3 1"), "1 1");
  EXPECT_EQ(poll(), "1 5");
  object.cookie->unuse();
}

TEST_F(Shim, ARequestThatIsWithdrawnShowsNoLonger) {
  bind();
  std::string handle;
  Object object = opened("key", 8192, &handle);
  auto outcome = std::make_shared<cachefiles::test::Promise<int>>();
  auto wait = object.cookie->ensure({0, 4096}, [outcome](int result) { outcome->set(result); });
  EXPECT_EQ(poll("poll", 30000), "1 1");
  wait->cancel();
  EXPECT_EQ(outcome->wait(), -EINTR);
  for (int i = 0; i < 1000 && poll() != "0 0"; ++i) continue;  // the news takes a thread's turn
  EXPECT_EQ(poll(), "0 0");
  EXPECT_EQ(read().result, 0);
  object.cookie->unuse();
}

TEST_F(Shim, ASleeperIsWoken) {
  bind();
  std::vector<Object> objects;
  for (std::string how : {"poll poll", "poll ppoll", "select select", "select pselect"}) {
    bool polls = how.starts_with("poll");
    start_line(how + " -1 3" + (polls ? " 1" : ""));
    objects.push_back(use("key " + how));
    EXPECT_EQ(clients_.front()->receive(), polls ? "1 1" : "1 i-") << how;
    EXPECT_GT(read().result, 0);
  }
}

// A supervisor restores while the daemon, another process with the same channel, sleeps in poll.
TEST_F(Shim, T78_RestoreInOneProcessWakesThePollOfAnother) {
  bind();
  std::string handle;
  Object object = opened("key", 1 << 20, &handle);
  auto filled = ensure(object, 0, 4096);
  EXPECT_EQ(next().u32(4), 2u);
  for (std::string how : {"poll poll -1 3 1", "poll ppoll -1 3 1", "select select -1 3", "poll poll -1 3 1"}) {
    EXPECT_EQ(poll(), "0 0") << "delivered";
    start_line("beside " + how);
    std::string first = text("write write 3 restore");
    std::set<std::string> both{first, clients_.front()->receive()};
    EXPECT_EQ(both, (std::set<std::string>{"7", how.starts_with("poll") ? "1 1" : "1 i-"})) << how;
    EXPECT_EQ(read().u32(4), 2u) << "the READ again";
  }
  object.cookie->unuse();
}

TEST_F(Shim, OtherDescriptorsAreWaitedForAsWell) {
  bind();
  EXPECT_EQ(text("pipe"), "4 5");
  EXPECT_EQ(text("poll poll 0 4 1 3 5 5 4"), "1 0 0 4");
  EXPECT_EQ(call("put 5"), 1);
  EXPECT_EQ(text("poll poll -1 4 1 3 5"), "1 1 0");
  Object object = use("key");
  EXPECT_EQ(text("poll poll 30000 3 1"), "1 1");
  EXPECT_EQ(text("poll poll -1 3 1 4 1 99 1 3 4"), "3 1 1 20 0") << "in their order; 99 is not open";
  EXPECT_EQ(text("select select -1 3 4 5"), "3 i- i- o-");
  EXPECT_EQ(text("select pselect -1 3 4 99"), std::to_string(-EBADF));
}

TEST_F(Shim, TimeoutsAndSignalsAreTheKernels) {
  bind();
  EXPECT_EQ(text("poll poll 1 3 5"), "0 0");
  EXPECT_EQ(text("select select 1 3"), "0 -");
  EXPECT_EQ(text("select pselect 1 3"), "0 -");
  EXPECT_EQ(text("poll masked -1 3 1"), std::to_string(-EINTR)) << "a signal that the call's mask lets in";
  EXPECT_EQ(write("debug 0"), 7);
}

TEST_F(Shim, AnObjectsDescriptorIsAlwaysReady) {
  bind();
  std::string handle;
  Object object = opened("key", 8192, &handle);
  EXPECT_EQ(text("poll poll -1 " + handle + " 5"), "1 5");
  EXPECT_EQ(text("poll poll -1 3 1 " + handle + " 4"), "1 0 4");
  EXPECT_EQ(text("select select -1 3 " + handle), "2 - io-");
  EXPECT_EQ(text("epoll create"), "5");
  EXPECT_EQ(call("epoll add 5 " + handle + " 1"), -EPERM);
  object.cookie->unuse();
}

TEST_F(Shim, EpollWaitsForADevice) {
  bind();
  EXPECT_EQ(text("epoll create"), "4");
  EXPECT_EQ(call("epoll mod 4 3 1"), -ENOENT);
  EXPECT_EQ(call("epoll add 4 3 5"), 0);
  EXPECT_EQ(call("epoll add 4 3 5"), -EEXIST);
  EXPECT_EQ(call("dup 3"), 5);
  EXPECT_EQ(call("epoll add 4 5 1"), 0) << "another number is another registration";
  EXPECT_EQ(text("epoll wait 4 0"), "0");
  Object object = use("key");
  EXPECT_EQ(text("poll poll 30000 3 1"), "1 1");
  std::string both = text("epoll wait 4 -1");
  EXPECT_TRUE(both == "2 1003:1 1005:1" || both == "2 1005:1 1003:1") << both;
  EXPECT_EQ(call("epoll del 4 5"), 0);
  EXPECT_EQ(call("epoll del 4 5"), -ENOENT);
  EXPECT_EQ(text("epoll wait 4 -1"), "1 1003:1") << "level-triggered";
  EXPECT_EQ(call("epoll mod 4 3 4"), 0);
  EXPECT_EQ(text("epoll wait 4 0"), "0");
  EXPECT_EQ(call("epoll mod 4 3 " + std::to_string(EPOLLIN | EPOLLONESHOT)), 0);
  EXPECT_EQ(text("epoll wait 4 -1"), "1 1003:1");
  EXPECT_EQ(text("epoll wait 4 0"), "0") << "one shot";
  EXPECT_EQ(call("epoll mod 4 3 1"), 0);
  EXPECT_EQ(call("close 5"), 0);
  EXPECT_EQ(text("epoll wait 4 -1"), "1 1003:1");
  EXPECT_EQ(call("close 3"), 0);
  EXPECT_EQ(text("epoll wait 4 0"), "0") << "a close ends it";
  EXPECT_EQ(call("epoll del 4 3"), -EBADF);
}

TEST_F(Shim, AnEpollNumberThatIsUsedAgainIsAnother) {
  bind();
  EXPECT_EQ(text("epoll create"), "4");
  EXPECT_EQ(call("epoll add 4 3 1"), 0);
  EXPECT_EQ(call("close 4"), 0);
  EXPECT_EQ(text("epoll create"), "4");
  EXPECT_EQ(call("epoll add 4 3 1"), 0);
  EXPECT_EQ(text("epoll wait 4 0"), "0");
}

TEST_F(Shim, EachRequestIsAnEdge) {
  bind();
  EXPECT_EQ(text("epoll create"), "4");
  EXPECT_EQ(call("epoll add 4 3 " + std::to_string(EPOLLIN | EPOLLET)), 0);
  std::vector<Object> objects;
  for (int i = 0; i < 5; ++i) {
    objects.push_back(use("key" + std::to_string(i)));
    EXPECT_EQ(text("epoll wait 4 30000"), "1 1003:1") << i << ": though the one before was not read";
  }
}

TEST_F(Shim, AChildsCloseLeavesItsParentsEpoll) {
  bind();
  EXPECT_EQ(text("epoll create"), "4");
  EXPECT_EQ(call("epoll add 4 3 1"), 0);
  EXPECT_EQ(call("fork close 3"), 0);
  Object object = use("key");
  EXPECT_EQ(text("epoll wait 4 30000"), "1 1003:1");
}

}  // namespace
}  // namespace hydrant::shim_test
