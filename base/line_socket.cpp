#include "base/line_socket.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

#include <atomic>
#include <cerrno>
#include <vector>

#include "base/log.h"
#include "base/unix_socket.h"

namespace hydrant {
namespace {

constexpr auto kSendPatience = std::chrono::seconds(5);

}  // namespace

Result<LineSocket> LineSocket::connect(const std::string& path, Deadline deadline) {
  HYDRANT_TRY(Fd socket, connect_unix(path, SocketType::kStream, deadline));
  return LineSocket(std::move(socket));
}

Result<> LineSocket::send(std::string_view line, Deadline deadline) {
  if (line.size() >= kLimit || line.find('\n') != line.npos) return fail(Code::kInvalid, "not one line of text");
  std::string text(line);
  text += '\n';
  std::string_view rest = text;
  while (!rest.empty()) {
    ssize_t sent = ::send(socket_.get(), rest.data(), rest.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent > 0) {
      rest.remove_prefix(static_cast<size_t>(sent));
    } else if (errno == EAGAIN) {
      if (!wait_fd(socket_.get(), POLLOUT, deadline)) return fail(Code::kTooSlow, "the peer takes nothing");
    } else if (errno == EPIPE || errno == ECONNRESET) {
      return fail(Code::kGone, "the peer has hung up");
    } else if (errno != EINTR) {
      return fail_sys(errno, "send");
    }
  }
  return {};
}

Result<std::string> LineSocket::receive(Deadline deadline) {
  size_t searched = 0;
  for (;;) {
    size_t end = pending_.find('\n', searched);
    if (end != pending_.npos) {
      std::string line = pending_.substr(0, end);
      pending_.erase(0, end + 1);
      return line;
    }
    searched = pending_.size();
    if (pending_.size() >= kLimit) return fail(Code::kInvalid, "a line is longer than 1 MiB");
    char part[16384];
    ssize_t got = ::recv(socket_.get(), part, sizeof part, MSG_DONTWAIT);
    if (got > 0) {
      pending_.append(part, static_cast<size_t>(got));
    } else if (got == 0 || errno == ECONNRESET) {
      return fail(Code::kGone, "the peer has hung up");
    } else if (errno == EAGAIN) {
      if (!wait_fd(socket_.get(), POLLIN, deadline)) return fail(Code::kTooSlow, "no answer in time");
    } else if (errno != EINTR) {
      return fail_sys(errno, "recv");
    }
  }
}

// One peer and its thread. The watcher owns it; the thread runs `serve` and sets `done_` last.
class LineServer::Connection final : public LineTalk {
 public:
  Connection(Fd socket, const PeerCredentials& peer, int wake, const MakeSession& make_session)
      : watched_(socket.duplicate()), socket_(std::move(socket)), peer_(peer), wake_(wake) {
    thread_ = std::jthread([this, &make_session] { serve(make_session); });
  }
  ~Connection() override { close_input(); }

  bool send(std::string_view line) override { return socket_.send(line, Deadline::after(kSendPatience)).has_value(); }
  std::stop_token stop_token() const override { return stop_.get_token(); }

  int watched_fd() const { return watched_.get(); }
  bool done() const { return done_.load(std::memory_order_acquire); }  // pairs with the release at the end of `serve`
  bool hung_up() const { return stop_.stop_requested(); }
  void hang_up() { stop_.request_stop(); }
  // The session sees the end of the stream after its present request; an answer still gets out.
  void close_input() {
    hang_up();
    ::shutdown(watched_.get(), SHUT_RD);
  }

 private:
  void serve(const MakeSession& make_session) {
    {
      std::unique_ptr<LineSession> session = make_session(peer_);
      // An idle peer costs a thread and nothing else; it ends by hanging up or when the server stops.
      for (;;) {
        auto request = socket_.receive(Deadline(Instant::max()));
        if (!request) break;
        std::string answer = session->answer(*request, *this);
        if (!send(answer)) break;
      }
    }
    ::shutdown(watched_.get(), SHUT_RDWR);
    done_.store(true, std::memory_order_release);
    uint64_t one = 1;
    if (::write(wake_, &one, sizeof one) < 0) return;  // full counter: the watcher wakes anyway
  }

  Fd watched_;  // a second descriptor: the watcher polls and shuts down, the thread reads and writes
  LineSocket socket_;
  PeerCredentials peer_;
  int wake_;
  std::stop_source stop_;
  std::atomic<bool> done_ = false;
  std::jthread thread_;  // last: joined before the rest goes
};

bool LineServer::is_root_or_own(const PeerCredentials& peer) { return peer.uid == 0 || peer.uid == ::geteuid(); }

Result<std::unique_ptr<LineServer>> LineServer::start(Fd listener, std::string denied, MakeSession make_session,
                                                      Admit admit) {
  Fd wake(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!wake) return fail_sys(errno, "eventfd");
  if (int flags = ::fcntl(listener.get(), F_GETFL);
      flags < 0 || ::fcntl(listener.get(), F_SETFL, flags | O_NONBLOCK) < 0) {
    return fail_sys(errno, "fcntl");
  }
  return std::unique_ptr<LineServer>(new LineServer(std::move(listener), std::move(wake), std::move(denied),
                                                    std::move(make_session), std::move(admit)));
}

LineServer::LineServer(Fd listener, Fd wake, std::string denied, MakeSession make_session, Admit admit)
    : listener_(std::move(listener)),
      wake_(std::move(wake)),
      denied_(std::move(denied)),
      make_session_(std::move(make_session)),
      admit_(std::move(admit)),
      watcher_([this](std::stop_token stop) { watch(stop); }) {}

LineServer::~LineServer() { stop(); }

void LineServer::stop() {
  watcher_.request_stop();
  uint64_t one = 1;
  if (::write(wake_.get(), &one, sizeof one) < 0 && errno != EAGAIN) log::warn("line-server.wake", {{"errno", errno}});
  if (watcher_.joinable()) watcher_.join();
}

void LineServer::watch(std::stop_token stop) {
  std::vector<pollfd> entries;
  while (!stop.stop_requested()) {
    reap();
    entries.assign({{wake_.get(), POLLIN, 0}, {listener_.get(), POLLIN, 0}});
    std::vector<Connection*> live;
    for (auto& connection : connections_) {
      if (connection->hung_up()) continue;  // told already; looking again would spin
      entries.push_back({connection->watched_fd(), POLLRDHUP, 0});
      live.push_back(connection.get());
    }
    if (::poll(entries.data(), entries.size(), -1) < 0) continue;
    uint64_t count;
    if (entries[0].revents && ::read(wake_.get(), &count, sizeof count) < 0) continue;
    for (size_t i = 0; i < live.size(); ++i) {
      if (entries[i + 2].revents) live[i]->hang_up();
    }
    if (entries[1].revents) accept_one();
  }
  listener_.reset();
  for (auto& connection : connections_) connection->close_input();
  connections_.clear();  // joins each
}

void LineServer::accept_one() {
  auto accepted = accept_unix(listener_.get());
  if (!accepted) {
    // Out of descriptors: the connection stays in the backlog, so do not spin on it, nor say so each time.
    if (!std::exchange(refused_, true)) log::warn("line-server.accept", {{"error", accepted.error().what}});
    ::poll(nullptr, 0, 50);
    return;
  }
  refused_ = false;
  Fd socket = *std::move(accepted);
  if (!socket) return;
  auto peer = peer_credentials(socket.get());
  if (!peer || !admit_(*peer)) {
    log::warn("line-server.denied", {{"uid", peer ? peer->uid : uid_t(-1)}});
    // A short line into an empty buffer: it never blocks.
    (void)LineSocket(std::move(socket)).send(denied_, Deadline::after(Duration(0)));
    return;
  }
  if (connections_.size() >= kConnections) return;
  connections_.push_back(std::make_unique<Connection>(std::move(socket), *peer, wake_.get(), make_session_));
}

void LineServer::reap() {
  connections_.remove_if([](const auto& connection) { return connection->done(); });
}

}  // namespace hydrant
