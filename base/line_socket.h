// Lines of text over UNIX stream sockets: one request a line, answered by lines. The admin sockets of both daemons and
// their clients.
#pragma once

#include <functional>
#include <list>
#include <memory>
#include <mutex>
#include <stop_token>
#include <string>
#include <string_view>
#include <thread>

#include "base/clock.h"
#include "base/error.h"
#include "base/fd.h"
#include "base/unix_socket.h"

namespace hydrant {

// One end of a connection. Move-only, owned by one thread at a time.
class LineSocket {
 public:
  static constexpr size_t kLimit = 1 << 20;

  // `socket` must be a connected stream socket.
  explicit LineSocket(Fd socket) : socket_(std::move(socket)) {}

  // Fails as connect_unix does.
  static Result<LineSocket> connect(const std::string& path, Deadline deadline);

  // Adds the newline. kInvalid for a line with a newline in it or past the limit, kGone when the peer has left.
  Result<> send(std::string_view line, Deadline deadline);

  // Without its newline. kGone at the end of the stream, kInvalid past the limit.
  Result<std::string> receive(Deadline deadline);

  int fd() const { return socket_.get(); }

 private:
  Fd socket_;
  std::string pending_;
};

// What a server gives a session for one request.
class LineTalk {
 public:
  virtual ~LineTalk() = default;
  // Sends a line before the final one. False when the peer has left or reads nothing for 5 s.
  virtual bool send(std::string_view line) = 0;
  // Stop is requested when the peer hangs up or the server stops.
  virtual std::stop_token stop_token() const = 0;
};

// One connection's state on the server. Lives on the connection's thread; destroyed when the peer hangs up, so what it
// holds is what the peer had begun.
class LineSession {
 public:
  virtual ~LineSession() = default;
  // The final line for a request.
  virtual std::string answer(std::string_view request, LineTalk& talk) = 0;
};

// Accepts connections of those it admits, one thread each, at most kConnections at once: a further one is
// closed at once. Thread-safe.
class LineServer {
 public:
  static constexpr size_t kConnections = 64;
  using MakeSession = std::function<std::unique_ptr<LineSession>(const PeerCredentials& peer)>;
  using Admit = std::function<bool(const PeerCredentials& peer)>;
  static bool is_root_or_own(const PeerCredentials& peer);

  // `listener` is a listening stream socket. `denied` is the line that those get who are not admitted. `make_session`
  // is called on connection threads and must outlive the server; `admit` on the server's own.
  static Result<std::unique_ptr<LineServer>> start(Fd listener, std::string denied, MakeSession make_session,
                                                   Admit admit = is_root_or_own);

  // Ends as `stop` does.
  ~LineServer();

  // Accepts nothing further, requests stop for every request under way, lets their answers out, joins. Not to be called
  // from a session.
  void stop();

 private:
  class Connection;

  LineServer(Fd listener, Fd wake, std::string denied, MakeSession make_session, Admit admit);
  void watch(std::stop_token stop);
  void accept_one();
  void reap();

  Fd listener_;
  Fd wake_;  // eventfd: something to look at for `watch`
  std::string denied_;
  MakeSession make_session_;
  Admit admit_;
  std::list<std::unique_ptr<Connection>> connections_;  // the watcher's alone
  bool refused_ = false;                                // the last connection, for want of descriptors; the watcher's
  std::jthread watcher_;
};

}  // namespace hydrant
