// The server for tests, against clients that speak in raw frames.
#pragma once

#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/mman.h>

#include "base/temporary_directory.h"
#include "base/unix_socket.h"
#include "cachefiles/fake_engine.h"
#include "daemon/channel_server.h"

namespace hydrant::daemon::test {

namespace ch = proto::channel;
using cachefiles::FakeObject;
using namespace std::chrono_literals;

inline Deadline soon() { return Deadline::after(20s); }

template <class Condition>
bool eventually(Condition condition) {
  for (Deadline deadline = soon(); !condition(); std::this_thread::yield())
    if (deadline.passed()) return false;
  return true;
}

struct Reply {
  ch::Header header;
  Buffer payload;
  Fd fd;
};

// Speaks frames, or whatever a test wants to send.
class RawClient {
 public:
  explicit RawClient(Fd socket) : socket_(std::move(socket)) {}
  int fd() const { return socket_.get(); }
  void disconnect() { socket_.reset(); }
  void raw(Bytes bytes, std::vector<int> fds = {}) { send_packet(socket_.get(), bytes, {}, fds); }
  void send(const ch::Head& head, Bytes body = {}, std::vector<int> fds = {}) {
    ASSERT_GT(send_packet(socket_.get(), head.bytes(), body, fds), 0);
  }
  // Nothing at the end of the connection.
  std::optional<Reply> receive() {
    if (!wait_fd(socket_.get(), POLLIN, soon())) return std::nullopt;
    Buffer buffer(ch::kMaxFrame);
    Packet packet;
    if (receive_packet(socket_.get(), buffer, &packet) <= 0) return std::nullopt;
    auto frame = ch::decode_frame(Bytes(buffer).first(packet.size));
    if (!frame) return std::nullopt;
    return Reply{frame->header, to_buffer(frame->payload), std::move(packet.fds[0])};
  }
  int64_t ask(const ch::Head& head, Bytes body = {}, std::vector<int> fds = {}) {
    send(head, body, fds);
    auto reply = receive();
    return reply ? reply->header.result : -EPIPE;
  }
  int64_t hello(ch::Mode mode, uint64_t features = 0) {
    return ask(ch::encode_hello(1, {.mode = mode, .features = features}));
  }
  bool quiet() const { return !wait_fd(socket_.get(), POLLIN, Deadline::after(Duration(0))); }

 private:
  Fd socket_;
};

inline Fd sealed_memory(size_t size, int seals = F_SEAL_SHRINK) {
  Fd memory(::memfd_create("window", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  EXPECT_EQ(::ftruncate(memory.get(), off_t(size)), 0);
  EXPECT_EQ(seals ? ::fcntl(memory.get(), F_ADD_SEALS, seals) : 0, 0);
  return memory;
}

class ChannelServerTest : public ::testing::Test {
 protected:
  void SetUp() override { start({}); }
  void TearDown() override { server_.reset(); }
  void start(ChannelServerOptions options) {
    server_.reset();
    auto listener = listen_unix(directory_ + "/channel.sock", SocketType::kSeqPacket);
    ASSERT_TRUE(listener) << listener.error().what;
    options.allowed_uid = ::getuid();
    auto server = ChannelServer::start(engine_, standing_, *std::move(listener), options);
    ASSERT_TRUE(server) << server.error().what;
    server_ = *std::move(server);
  }
  RawClient connect() {
    auto socket = connect_unix(directory_ + "/channel.sock", SocketType::kSeqPacket, soon());
    EXPECT_TRUE(socket) << socket.error().what;
    return RawClient(*std::move(socket));
  }
  RawClient attached(uint64_t features = 0) {
    RawClient client = connect();
    EXPECT_EQ(client.hello(ch::Mode::kAttach, features), 0);
    return client;
  }
  // Delivers an OPEN and yields the client's end of the handle.
  RawClient open_handle(RawClient& control, std::shared_ptr<FakeObject> object, uint32_t msg_id = 0) {
    standing_->push_open(msg_id, std::move(object));
    control.send(ch::encode_read(50, {1024, 1}, true));
    auto reply = control.receive();
    EXPECT_TRUE(reply && reply->fd);
    return RawClient(reply ? std::move(reply->fd) : Fd());
  }
  // Everything a bad client may have broken still works for a good one.
  void expect_healthy() {
    ASSERT_TRUE(eventually([&] { return !server_->attached(); }));
    RawClient client = attached();
    EXPECT_EQ(client.ask(ch::encode_bytes(ch::Op::kWrite, 2, 4), as_bytes("bind")), 4);
  }
  bool ends_with(RawClient& client, CloseReason reason) {
    while (client.receive()) continue;
    return eventually([&] { return server_->closed(reason) == 1; });
  }

  const TemporaryDirectory temporary_;
  const std::string directory_ = temporary_.path();
  cachefiles::FakeEngine engine_;
  std::shared_ptr<cachefiles::FakeChannel> standing_ = std::make_shared<cachefiles::FakeChannel>();
  std::unique_ptr<ChannelServer> server_;
};

}  // namespace hydrant::daemon::test
