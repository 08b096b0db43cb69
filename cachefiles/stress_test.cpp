// Races: an answer against a flush, a cancel, a close; a drop against a worker; a close against a delivery.
// HYDRANT_STRESS is the number of iterations of each; without it a test does what is cheap.
#include <cstdlib>
#include <set>
#include <thread>

#include "base/log.h"
#include "cachefiles/harness.h"

namespace hydrant::cachefiles::test {
namespace {

int iterations(int cheap) {
  const char* text = std::getenv("HYDRANT_STRESS");
  return text ? std::atoi(text) : cheap;
}

class Stress : public EngineTest {
 protected:
  void SetUp() override {
    if (std::getenv("HYDRANT_STRESS")) log::set_level(log::Level::kError);
    EngineTest::SetUp();
  }
};

TEST_F(Stress, S12_AnAnswerAndACancelCompleteOnce) {
  BO();
  auto o = opened("key", 1 << 20);
  for (int i = 0; i < iterations(2000); ++i) {
    auto data = C(*o.cookie, 0, kBlock);
    auto read = next();
    std::thread killer([&] { last_wait->cancel(); });
    int answered = cr(o.fd, read.msg_id);
    killer.join();
    int result = data->wait();
    ASSERT_EQ(data->count(), 1);
    ASSERT_EQ(answered == 0, result == -EIO);  // answered without data, or killed
  }
}

TEST_F(Stress, S20_NeverOpenWithoutAHandle) {
  BO();
  auto o = opened("key", 1 << 20);
  daemon.table.clear();
  for (int i = 0; i < iterations(2000); ++i) {
    auto data = C(*o.cookie, 0, kBlock);
    ASSERT_EQ(Rd(), 0);
    auto open = next();
    ASSERT_EQ(open.opcode, proto::Opcode::kOpen);
    std::thread closer([handle = std::move(daemon.table.at(open.fd))]() mutable { handle.reset(); });
    daemon.table.clear();
    W(copen(open.msg_id, 1 << 20));
    closer.join();
    // Whatever won, the object is closed now: its READ asks for a new handle, it is not delivered with a dead id.
    ASSERT_TRUE(in());
    ASSERT_EQ(Rd(), 0);
    auto again = next();
    ASSERT_EQ(again.opcode, proto::Opcode::kOpen);
    W(copen(again.msg_id, 1 << 20));
    auto read = next();
    ASSERT_EQ(read.object_id, again.object_id);
    cr(again.fd, read.msg_id);
    data->wait();
    daemon.table.clear();
  }
}

TEST_F(Stress, S29_ACloseIsCompletedOnce) {
  BO();
  int rounds = iterations(100);  // each makes and commits a file
  for (int i = 0; i < rounds; ++i) {
    auto o = opened("key", 4096);
    auto gone = rel(o.cookie);
    ASSERT_TRUE(wait_in());
    std::thread closer([handle = std::move(daemon.table.at(o.fd))]() mutable { handle.reset(); });
    daemon.table.clear();
    int64_t got = Rd();
    closer.join();
    ASSERT_TRUE(got == 16 || got == 0);
    gone->wait();
    ASSERT_EQ(gone->count(), 1);
    forget(o.cookie);
  }
}

TEST_F(Stress, S10_NothingIsQueuedBehindTheFlush) {
  for (int i = 0, rounds = iterations(20); i < rounds; ++i) {  // each binds a cache
    BO();
    auto o = opened("key", 1 << 20);
    std::vector<Outcome> waits;
    std::thread reader([&] {
      for (int j = 0; j < 30; ++j) {
        auto out = std::make_shared<Promise<int>>();
        auto wait = o.cookie->ensure({0, kBlock}, [out](int result) { out->set(result); });
        if (wait && j % 3 == 0) wait->cancel();  // against the flush, too
        waits.push_back(out);
      }
    });
    channel.reset();
    reader.join();
    for (auto& wait : waits) {
      int result = wait->wait();
      ASSERT_TRUE(result == -EIO || result == -EINTR);
      ASSERT_EQ(wait->count(), 1);
    }
    daemon.table.clear();
    forget(o.cookie);
    volumes.clear();
    settle();
  }
}

TEST_F(Stress, S36_ALookupAndTheEndOfItsCache) {
  for (int i = 0, rounds = iterations(20); i < rounds; ++i) {
    BO();
    auto c = cookie("key");
    Outcome ready;
    std::thread consumer([&] { ready = use(*c); });
    if (i % 2) Rd();
    channel.reset();
    daemon.table.clear();
    consumer.join();
    int result = ready->wait();
    ASSERT_TRUE(result == -EIO || result == -ENOBUFS) << result;
    forget(c);
    volumes.clear();
    settle();
  }
}

TEST_F(Stress, S4_WritesAgainstAWithdrawal) {
  BO();
  for (int i = 0, rounds = iterations(100); i < rounds; ++i) {
    auto o = opened("key", 1 << 20);
    auto held = daemon.table.at(o.fd);
    std::thread writer([&] {
      for (int j = 0; j < 10; ++j) {
        int64_t done = held->pwrite(blocks(4096), 0);
        ASSERT_TRUE(done == 4096 || done == -ENOBUFS) << done;
        int64_t at = held->lseek(0, SEEK_END);
        ASSERT_TRUE(at == 1 << 20 || at == -ENOBUFS) << at;
      }
    });
    auto gone = rel(o.cookie);
    ASSERT_EQ(next().opcode, proto::Opcode::kClose);
    gone->wait();
    writer.join();
    ASSERT_EQ(held->pwrite(blocks(4096), 0), -ENOBUFS);
    daemon.table.clear();
    forget(o.cookie);
  }
}

TEST_F(Stress, S9_PollersAgainstAnswers) {
  BO();
  auto o = opened("key", 1 << 20);
  std::atomic<bool> stop{false};
  std::thread poller([&] {
    while (!stop.load()) channel->poll();
  });
  for (int i = 0, rounds = iterations(2000); i < rounds; ++i) {
    auto data = C(*o.cookie, 0, kBlock);
    ASSERT_TRUE(in());
    auto read = next();
    ASSERT_EQ(cr(o.fd, read.msg_id), 0);
    ASSERT_EQ(data->count(), 1);
  }
  stop = true;
  poller.join();
}

TEST_F(Stress, S13_ASecondDeliveryAgainstTheFirstAnswer) {
  BO();
  auto c = cookie("key");
  for (int i = 0, rounds = iterations(300); i < rounds; ++i) {
    auto ready = use(*c);
    auto open = next();
    W("restore");
    FakeDaemon other;
    int64_t got = 0;
    std::thread second([&] { got = channel->read(1024, other); });
    int64_t answered = W(copen(open.msg_id, -1));
    second.join();
    ASSERT_TRUE(got == 0 || got == -EEXIST) << got;
    ASSERT_TRUE(answered > 0 || answered == -EINVAL) << answered;
    ASSERT_EQ(ready->wait(), -ENOBUFS);
    ASSERT_EQ(ready->count(), 1);
    daemon.table.clear();
    ASSERT_TRUE(eventually([&] { return c->state() == '-'; }));
  }
}

TEST_F(Stress, S23_S25_ADropAgainstTheReopen) {
  BO();
  for (int i = 0, rounds = iterations(100); i < rounds; ++i) {
    auto o = opened("key", 1 << 20);
    daemon.table.clear();
    auto data = C(*o.cookie, 0, kBlock);
    std::thread worker([&] { Rd(); });
    auto gone = rel(o.cookie);
    worker.join();
    gone->wait();
    ASSERT_EQ(data->wait(), -EIO);
    ASSERT_EQ(data->count(), 1);
    ASSERT_EQ(engine().listing(0).caches.at(0).requests, 0u);
    forget(o.cookie);
  }
}

TEST_F(Stress, ACloseAgainstADelivery) {
  BO();
  auto o = opened("key", 1 << 20);
  auto open = o.open;
  for (int i = 0, rounds = iterations(2000); i < rounds; ++i) {
    auto data = C(*o.cookie, 0, kBlock);
    std::thread closer([handle = std::move(daemon.table.at(open.fd))]() mutable { handle.reset(); });
    daemon.table.clear();
    int64_t got = Rd();
    ASSERT_TRUE(got == 32 || got == 0) << got;
    if (got == 32) {
      ASSERT_EQ(message().object_id, open.object_id);  // E5
    }
    closer.join();
    if (got == 32) {  // delivered before the close: it comes back, and asks for a handle
      W("restore");
      ASSERT_EQ(Rd(), 0);
    }
    open = next();
    ASSERT_EQ(open.opcode, proto::Opcode::kOpen);
    W(copen(open.msg_id, 1 << 20));
    auto read = next();
    ASSERT_EQ(read.opcode, proto::Opcode::kRead);
    ASSERT_EQ(cr(open.fd, read.msg_id), 0);
    ASSERT_EQ(data->wait(), -EIO);
  }
}

TEST_F(Stress, ManyPendingRequestsAreDeliveredInTurn) {
  BO();
  auto o = opened("key", uint64_t{1} << 33);
  constexpr uint32_t kPending = 20'000;
  std::atomic<uint32_t> done{0};
  std::vector<std::shared_ptr<Cookie::Wait>> waits;
  for (uint32_t i = 0; i < kPending; ++i)
    waits.push_back(o.cookie->ensure({i * kBlock, (i + 1) * kBlock}, [&](int) { ++done; }));
  for (uint32_t i = 0; i < kPending; ++i) {
    ASSERT_EQ(Rd(), 32);
    ASSERT_EQ(cr(o.fd, message().msg_id), 0);
  }
  EXPECT_EQ(done.load(), kPending);
}

}  // namespace
}  // namespace hydrant::cachefiles::test
