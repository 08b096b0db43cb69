#include "base/unix_socket.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/stat.h>

#include <filesystem>

#include "base/temporary_directory.h"

namespace hydrant {
namespace {

using namespace std::chrono_literals;

class UnixSocket : public ::testing::Test {
 protected:
  static Deadline soon() { return Deadline::after(10s); }
  const TemporaryDirectory temporary_;
  const std::string directory_ = temporary_.path(), path_ = directory_ + "/s";
};

TEST_F(UnixSocket, TheSocketFileHasItsModeAndTheServerKnowsItsPeer) {
  auto listener = listen_unix(path_, SocketType::kSeqPacket, 0600);
  ASSERT_TRUE(listener) << listener.error().what;
  struct stat status {};
  ASSERT_EQ(::stat(path_.c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 0777, 0600u);
  EXPECT_FALSE(*accept_unix(listener->get())) << "nobody has connected yet";
  auto client = connect_unix(path_, SocketType::kSeqPacket, soon());
  ASSERT_TRUE(client);
  ASSERT_TRUE(wait_fd(listener->get(), POLLIN, soon()));
  auto accepted = accept_unix(listener->get());
  ASSERT_TRUE(accepted && *accepted);
  EXPECT_EQ(peer_credentials(accepted->get())->pid, ::getpid());
  EXPECT_EQ(peer_credentials(accepted->get())->uid, ::getuid());
}

TEST_F(UnixSocket, AFileLeftByADeadServerIsReplacedAndALiveServerIsNot) {
  { ASSERT_TRUE(listen_unix(path_, SocketType::kStream)); }
  EXPECT_EQ(connect_unix(path_, SocketType::kStream, soon()).error().code, Code::kUnreachable);
  auto second = listen_unix(path_, SocketType::kStream);
  ASSERT_TRUE(second) << second.error().what;
  EXPECT_EQ(listen_unix(path_, SocketType::kStream).error().code, Code::kBusy);
  EXPECT_EQ(connect_unix(directory_ + "/none", SocketType::kStream, soon()).error().code, Code::kNotFound);
  EXPECT_EQ(listen_unix(std::string(200, 'x'), SocketType::kStream).error().code, Code::kInvalid);
}

TEST_F(UnixSocket, AMessageKeepsItsBoundsAndCarriesDescriptors) {
  auto pair = socket_pair(SocketType::kSeqPacket);
  ASSERT_TRUE(pair);
  auto& [near, far] = *pair;
  int passed[] = {near.get(), far.get()};
  EXPECT_EQ(send_packet(near.get(), as_bytes("head"), as_bytes("body"), passed), 8);
  EXPECT_EQ(send_packet(near.get(), as_bytes("second")), 6);
  Buffer buffer(6);
  Packet packet;
  EXPECT_EQ(receive_packet(far.get(), buffer, &packet), 6) << "what fits";
  EXPECT_TRUE(packet.truncated);
  ASSERT_EQ(packet.fd_count, 2u);
  EXPECT_TRUE(::fcntl(packet.fds[0].get(), F_GETFD) & FD_CLOEXEC);
  EXPECT_EQ(receive_packet(far.get(), buffer, &packet), 6);
  EXPECT_EQ(as_text(buffer), "second");
  EXPECT_EQ(packet.fd_count, 0u);
  EXPECT_EQ(receive_packet(far.get(), buffer, &packet), -EAGAIN);
}

TEST_F(UnixSocket, AClosedPeerIsTheEndAndNoSignal) {
  auto pair = socket_pair(SocketType::kSeqPacket);
  pair->second.reset();
  Buffer buffer(8);
  Packet packet;
  EXPECT_EQ(receive_packet(pair->first.get(), buffer, &packet), 0);
  EXPECT_EQ(send_packet(pair->first.get(), as_bytes("x")), -EPIPE);
}

TEST_F(UnixSocket, WaitingEndsAtTheDeadline) {
  auto pair = socket_pair(SocketType::kSeqPacket);
  EXPECT_FALSE(wait_fd(pair->first.get(), POLLIN, Deadline::after(1ms)));
  EXPECT_TRUE(wait_fd(pair->first.get(), POLLOUT, soon()));
}

}  // namespace
}  // namespace hydrant
