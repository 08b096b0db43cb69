#include "source/http/politeness.h"

#include <gtest/gtest.h>

#include <atomic>
#include <thread>

#include "source/http/http_blob.h"
#include "source/http/scripted_server.h"

namespace hydrant::source {
namespace {

using namespace std::chrono_literals;
using Request = ScriptedServer::Request;
using Response = ScriptedServer::Response;

Deadline soon() { return Deadline::after(20s); }

TEST(Pace, IsNoneUntilARefusalThenFallsByThirdsAndComesBack) {
  Instant now{1h};
  Pace pace;
  for (int i = 0; i < 90; ++i) EXPECT_EQ(pace.book(now), now);
  pace.refused(now);
  EXPECT_DOUBLE_EQ(pace.per_second().value(), 60);
  pace.refused(now + 10ms);  // was on its way already
  EXPECT_DOUBLE_EQ(pace.per_second().value(), 60);
  now += 200ms;
  pace.refused(now);
  EXPECT_DOUBLE_EQ(pace.per_second().value(), 40);
  auto first = pace.book(now);
  EXPECT_GT(first, now);
  EXPECT_EQ(pace.book(now) - first, 25ms);
  now += 2s;
  EXPECT_EQ(pace.book(now), now);  // nobody asked meanwhile: at once
  EXPECT_DOUBLE_EQ(pace.per_second().value(), 42);
  now += 3min;
  EXPECT_EQ(pace.book(now), now);
  EXPECT_FALSE(pace.per_second());
}

TEST(Pace, DoesNotFallFarBelowWhatIsServed) {
  Instant now{1h};
  Pace pace;
  for (int i = 0; i < 90; ++i) pace.book(now);
  for (int i = 0; i < 50; ++i) pace.served(now);
  for (int i = 1; i < 5; ++i) pace.refused(now + i * 150ms);
  EXPECT_DOUBLE_EQ(pace.per_second().value(), 40);
}

TEST(Pace, NeverStopsAltogether) {
  Instant now{1h};
  Pace pace;
  for (int i = 0; i < 100; ++i) pace.refused(now += 1s);
  EXPECT_DOUBLE_EQ(pace.per_second().value(), 1);
}

TEST(Pace, APauseHoldsEverybody) {
  Instant now{1h};
  Pace pace;
  pace.pause_until(now + 3s);
  EXPECT_EQ(pace.book(now), now + 3s);
  EXPECT_EQ(pace.book(now + 4s), now + 4s);
}

TEST(Politeness, TransfersPastTheLimitWaitForOneToEnd) {
  Politeness politeness(1);
  auto first = politeness.take("a", {soon(), {}});
  ASSERT_TRUE(first);
  EXPECT_TRUE(politeness.take("b", {soon(), {}}));
  EXPECT_EQ(politeness.take("a", {Deadline::after(10ms), {}}).error().code, Code::kTooSlow);
  std::stop_source stop;
  stop.request_stop();
  EXPECT_EQ(politeness.take("a", {soon(), stop.get_token()}).error().code, Code::kCancelled);
  std::jthread other([&] { EXPECT_TRUE(politeness.take("a", {soon(), {}})); });
  { auto gone = std::move(*first); }
}

TEST(Politeness, APauseBeyondTheDeadlineIsNotWaitedFor) {
  Politeness politeness(8);
  {
    auto turn = politeness.take("a", {soon(), {}});
    HttpHead head{.status = 429, .headers = {}, .url = {}, .retry_after = 9s, .error_body = {}};
    politeness.answered("a", head);
  }
  auto refused = politeness.take("a", {Deadline::after(1s), {}});
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, Code::kBusy);
  EXPECT_TRUE(politeness.take("b", {Deadline::after(1s), {}}));
}

// What nginx's limit_req does without a burst.
class Limiter {
 public:
  explicit Limiter(Duration interval) : interval_(interval) {}
  bool admit() {
    std::lock_guard lock(mutex_);
    auto now = Clock::system().now();
    if (now < next_) return false;
    next_ = now + interval_;
    return true;
  }

 private:
  const Duration interval_;
  std::mutex mutex_;
  Instant next_{};
};

TEST(Politeness, ALimitedOriginServesManyReadersWithoutOneFailedRead) {
  const std::string content(10'000, 'x');
  for (int status : {429, 503}) {
    Limiter limiter(5ms);
    ScriptedServer server([&](const Request& r) -> Response {
      return limiter.admit() ? ScriptedServer::serve(r, content) : Response{.status = status};
    });
    // Patience with an origin that is only busy is not counted in attempts.
    auto client = std::make_shared<HttpClient>(
        HttpOptions{.attempts = 2, .first_backoff = 1ms, .longest_backoff = 5ms, .ca_file = {}, .user_agent = {}});
    auto blob = HttpBlob::immutable(client, {.url = server.url(), .authorizer = {}, .name = {}}, content.size());
    std::atomic<int> good = 0;
    {
      std::vector<std::jthread> threads;
      for (int t = 0; t < 4; ++t)
        threads.emplace_back([&] {
          for (uint64_t i = 0; i < 8; ++i)
            good += read_all(*blob, {.range = {i, i + 1000}, .deadline = soon(), .stop = {}}).has_value();
        });
    }
    EXPECT_EQ(good, 32) << status;
  }
}

}  // namespace
}  // namespace hydrant::source
