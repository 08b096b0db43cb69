#include "source/http/hedging.h"

#include <gtest/gtest.h>

#include <atomic>

#include "source/http/http_blob.h"
#include "source/http/scripted_server.h"

namespace hydrant::source {
namespace {

using namespace std::chrono_literals;

TEST(FirstBytes, NothingIsConcludedFromAFew) {
  FirstBytes seen;
  for (size_t i = 0; i + 1 < FirstBytes::kFewest; ++i) seen.add(50ms);
  EXPECT_FALSE(seen.slow());
  seen.add(50ms);
  EXPECT_EQ(seen.slow(), Duration(100ms)) << "twice the median where all are alike";
}

TEST(FirstBytes, SlowIsWhatOneInAHundredExceeded) {
  FirstBytes seen;
  for (int i = 0; i < 256; ++i) seen.add(i % 32 == 7 ? 400ms : 50ms);
  EXPECT_EQ(seen.slow(), Duration(400ms));
  for (int i = 0; i < 256; ++i) seen.add(1ms);
  EXPECT_EQ(seen.slow(), FirstBytes::kLeast) << "what was is forgotten";
}

TEST(FirstBytes, OneRequestInFiftyIsAskedTwice) {
  FirstBytes seen;
  unsigned spent = 0;
  for (int i = 0; i < 1000; ++i) {
    seen.add(50ms);
    spent += seen.spend();
  }
  EXPECT_GE(spent, 19u);
  EXPECT_LE(spent, 21u);
  for (int i = 0; i < 1000; ++i) seen.add(50ms);
  for (spent = 0; seen.spend();) ++spent;
  EXPECT_EQ(spent, 3u);
}

class HedgedReads : public testing::Test {
 protected:
  // Has seen enough of the server to tell what is slow there.
  void learn(Blob& blob) {
    for (size_t i = 0; i < FirstBytes::kFewest; ++i) ASSERT_TRUE(read(blob));
  }
  Result<> read(Blob& blob) {
    return blob.read({.range = {100, 200}, .deadline = Deadline::after(20s), .stop = {}},
                     [this](Bytes bytes) -> Result<> {
                       got_ += as_text(bytes);
                       return {};
                     });
  }
  std::shared_ptr<HttpBlob> blob(const ScriptedServer& server) {
    // A server that says nothing is given up after the deadline.
    client_ = std::make_shared<HttpClient>(HttpOptions{.stall_timeout = 60s});
    return HttpBlob::immutable(client_, {.url = server.url("/f"), .authorizer = {}, .name = {}}, content_.size());
  }
  std::string expected(size_t reads) const {
    std::string out;
    for (size_t i = 0; i < reads; ++i) out += content_.substr(100, 100);
    return out;
  }

  const std::string content_ = [] {
    std::string out;
    for (int i = 0; i < 1000; ++i) out += std::to_string(i);
    return out;
  }();
  std::shared_ptr<HttpClient> client_;
  std::string got_;
};

TEST_F(HedgedReads, AnAnswerThatDoesNotBeginIsAskedForOnceMore) {
  std::atomic<size_t> calls = 0;
  ScriptedServer server([&](const ScriptedServer::Request& request) {
    auto out = ScriptedServer::serve(request, content_);
    out.no_answer = calls++ == FirstBytes::kFewest;
    return out;
  });
  auto blob = this->blob(server);
  learn(*blob);
  auto done = read(*blob);
  ASSERT_TRUE(done) << done.error().what;
  EXPECT_EQ(got_, expected(FirstBytes::kFewest + 1));
  EXPECT_EQ(client_->hedged(), 1u);
  EXPECT_EQ(server.requests().size(), FirstBytes::kFewest + 2);
  ASSERT_TRUE(read(*blob));
  EXPECT_EQ(server.connections(), 1 + client_->hedged()) << "the connection that answered is used again";
}

TEST_F(HedgedReads, ASecondRequestThatIsRefusedHarmsNobody) {
  std::atomic<size_t> calls = 0;
  std::atomic<bool> refused = false;
  ScriptedServer server([&](const ScriptedServer::Request& request) {
    auto out = ScriptedServer::serve(request, content_);
    const size_t call = calls++;
    if (call == FirstBytes::kFewest) refused.wait(false);
    if (call == FirstBytes::kFewest + 1) {
      out = {.status = 503};
      refused = true;
      refused.notify_all();
    }
    return out;
  });
  auto blob = this->blob(server);
  learn(*blob);
  auto done = read(*blob);
  ASSERT_TRUE(done) << done.error().what;
  EXPECT_EQ(got_, expected(FirstBytes::kFewest + 1));
  EXPECT_EQ(client_->hedged(), 1u);
}

TEST_F(HedgedReads, AnOriginThatStallsAltogetherIsNotAskedTwiceForEachRead) {
  std::atomic<size_t> calls = 0;
  ScriptedServer server([&](const ScriptedServer::Request& request) {
    auto out = ScriptedServer::serve(request, content_);
    out.no_answer = calls++ >= FirstBytes::kFewest;
    return out;
  });
  auto blob = this->blob(server);
  learn(*blob);
  const auto keep_nothing = [](Bytes) -> Result<> { return {}; };
  for (int i = 0; i < 10; ++i)
    EXPECT_EQ(blob->read({.range = {0, 10}, .deadline = Deadline::after(100ms), .stop = {}}, keep_nothing).error().code,
              Code::kTooSlow);
  EXPECT_LE(client_->hedged(), 3u);
}

}  // namespace
}  // namespace hydrant::source
