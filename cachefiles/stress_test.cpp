// Races: an answer against a flush, a cancel, a close. Iterations: HYDRANT_STRESS, default 2000.
#include <cstdlib>
#include <set>
#include <thread>

#include "cachefiles/harness.h"

namespace hydrant::cachefiles::test {
namespace {

int iterations() {
  const char* text = std::getenv("HYDRANT_STRESS");
  return text ? std::atoi(text) : 2000;
}

class Stress : public EngineTest {};

TEST_F(Stress, S12_AnAnswerAndACancelCompleteOnce) {
  BO();
  auto o = opened("key", 1 << 20);
  for (int i = 0; i < iterations(); ++i) {
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
  for (int i = 0; i < iterations(); ++i) {
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
  int rounds = std::max(10, iterations() / 20);  // each makes and commits a file
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
  int rounds = std::max(5, iterations() / 100);  // each binds a cache
  for (int i = 0; i < rounds; ++i) {
    BO();
    auto o = opened("key", 1 << 20);
    std::vector<Outcome> waits;
    std::thread reader([&] {
      for (int j = 0; j < 50; ++j) {
        auto out = std::make_shared<Promise<int>>();
        auto wait = o.cookie->ensure({0, kBlock}, [out](int result) { out->set(result); });
        waits.push_back(out);
      }
    });
    channel.reset();
    reader.join();
    for (auto& wait : waits) {
      ASSERT_EQ(wait->wait(), -EIO);
      ASSERT_EQ(wait->count(), 1);
    }
    daemon.table.clear();
    forget(o.cookie);
    volumes.clear();
    settle();
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
