#include "base/line_socket.h"

#include <gtest/gtest.h>
#include <sys/socket.h>

#include <filesystem>
#include <future>
#include <list>

#include "base/temporary_directory.h"
#include "base/unix_socket.h"

namespace hydrant {
namespace {

using namespace std::chrono_literals;

Deadline soon() { return Deadline::after(10s); }

// A listening socket in a directory of its own.
struct Listener {
  Listener() { fd = *listen_unix(path, SocketType::kStream); }
  const TemporaryDirectory temporary;
  const std::string dir = temporary.path(), path = dir + "/s";
  Fd fd;
};

struct Echo : LineSession {
  std::string answer(std::string_view request, LineTalk& talk) override {
    if (request == "three") {
      talk.send("one");
      talk.send("two");
    }
    return "<" + std::string(request) + ">";
  }
};

TEST(LineSocket, AConversationOfSeveralLines) {
  Listener listener;
  auto server = LineServer::start(std::move(listener.fd), "no", [](auto&) { return std::make_unique<Echo>(); });
  ASSERT_TRUE(server.has_value());
  auto client = LineSocket::connect(listener.path, soon());
  ASSERT_TRUE(client.has_value());
  ASSERT_TRUE(client->send("three", soon()).has_value());
  EXPECT_EQ(*client->receive(soon()), "one");
  EXPECT_EQ(*client->receive(soon()), "two");
  EXPECT_EQ(*client->receive(soon()), "<three>");
  ASSERT_TRUE(client->send("again", soon()).has_value());
  EXPECT_EQ(*client->receive(soon()), "<again>");
}

TEST(LineSocket, ALineUpToTheLimitPassesAndALongerOneIsRefused) {
  Listener listener;
  auto server = LineServer::start(std::move(listener.fd), "no", [](auto&) { return std::make_unique<Echo>(); });
  auto client = LineSocket::connect(listener.path, soon());
  std::string big(LineSocket::kLimit - 3, 'x');
  ASSERT_TRUE(client->send(big, soon()).has_value());
  EXPECT_EQ(client->receive(soon())->size(), big.size() + 2);
  EXPECT_EQ(client->send(std::string(LineSocket::kLimit, 'x'), soon()).error().code, Code::kInvalid);
  EXPECT_EQ(client->send("a\nb", soon()).error().code, Code::kInvalid);
}

TEST(LineSocket, AnEndlessLineEndsTheConnection) {
  Listener listener;
  auto server = LineServer::start(std::move(listener.fd), "no", [](auto&) { return std::make_unique<Echo>(); });
  auto client = LineSocket::connect(listener.path, soon());
  std::string part(65536, 'x');
  size_t sent = 0;
  for (;;) {  // raw bytes without a newline
    ssize_t n = ::send(client->fd(), part.data(), part.size(), MSG_NOSIGNAL);
    if (n < 0 && errno == EAGAIN) continue;
    if (n < 0) break;
    sent += static_cast<size_t>(n);
    ASSERT_LT(sent, 4u << 20);
  }
  auto end = client->receive(soon());
  EXPECT_EQ(end.error().code, Code::kGone);
}

TEST(LineSocket, NobodyThereIsNotFoundAtOnce) {
  auto client = LineSocket::connect("/nonexistent/socket", soon());
  ASSERT_FALSE(client.has_value());
  EXPECT_EQ(client.error().code, Code::kNotFound);
}

TEST(LineSocket, AServerThatSaysNothingIsTooSlow) {
  Listener listener;  // accepts nothing
  auto client = LineSocket::connect(listener.path, soon());
  ASSERT_TRUE(client.has_value());
  EXPECT_EQ(client->receive(Deadline::after(1ms)).error().code, Code::kTooSlow);
}

// Tells when it has begun and when it has seen the stop.
struct Patient : LineSession {
  Patient(std::promise<void>& b, std::promise<void>& e) : begun(b), ended(e) {}
  ~Patient() override { ended.set_value(); }
  std::string answer(std::string_view, LineTalk& talk) override {
    std::mutex mutex;
    std::condition_variable_any stopped;
    std::unique_lock lock(mutex);
    begun.set_value();
    stopped.wait(lock, talk.stop_token(), [] { return false; });
    return "cancelled";
  }
  std::promise<void>& begun;
  std::promise<void>& ended;
};

TEST(LineServer, HangingUpStopsTheRequestAndEndsTheSession) {
  Listener listener;
  std::promise<void> begun, ended;
  auto server =
      LineServer::start(std::move(listener.fd), "no", [&](auto&) { return std::make_unique<Patient>(begun, ended); });
  {
    auto client = LineSocket::connect(listener.path, soon());
    ASSERT_TRUE(client->send("wait", soon()).has_value());
    ASSERT_EQ(begun.get_future().wait_for(10s), std::future_status::ready);
  }
  EXPECT_EQ(ended.get_future().wait_for(10s), std::future_status::ready);
}

TEST(LineServer, StoppingLetsTheAnswerOut) {
  Listener listener;
  std::promise<void> begun, ended;
  auto server =
      LineServer::start(std::move(listener.fd), "no", [&](auto&) { return std::make_unique<Patient>(begun, ended); });
  auto client = LineSocket::connect(listener.path, soon());
  ASSERT_TRUE(client->send("wait", soon()).has_value());
  ASSERT_EQ(begun.get_future().wait_for(10s), std::future_status::ready);
  (*server)->stop();
  EXPECT_EQ(*client->receive(soon()), "cancelled");
  EXPECT_EQ(client->receive(soon()).error().code, Code::kGone);
}

TEST(LineServer, AConnectionPastTheBoundIsClosed) {
  Listener listener;
  auto server = LineServer::start(std::move(listener.fd), "no", [](auto&) { return std::make_unique<Echo>(); });
  std::list<LineSocket> clients;
  for (size_t i = 0; i < LineServer::kConnections; ++i) {
    auto client = LineSocket::connect(listener.path, soon());
    ASSERT_TRUE(client.has_value());
    ASSERT_TRUE(client->send("hi", soon()).has_value());
    ASSERT_TRUE(client->receive(soon()).has_value());
    clients.push_back(*std::move(client));
  }
  auto extra = LineSocket::connect(listener.path, soon());
  ASSERT_TRUE(extra.has_value());
  EXPECT_EQ(extra->receive(soon()).error().code, Code::kGone);
  clients.pop_front();
  for (;;) {  // the place becomes free once the watcher has seen the end
    auto next = LineSocket::connect(listener.path, soon());
    ASSERT_TRUE(next.has_value());
    if (next->send("hi", soon()) && next->receive(soon())) break;
    ASSERT_FALSE(soon().passed());
  }
}

}  // namespace
}  // namespace hydrant
