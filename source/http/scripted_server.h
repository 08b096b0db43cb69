// An HTTP/1.1 server on a free loopback port that answers as a test tells it to, faults included. Test support only.
#pragma once

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <cctype>
#include <functional>
#include <limits>
#include <list>
#include <map>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "base/bytes.h"
#include "base/check.h"
#include "base/fd.h"

namespace hydrant::source {

class ScriptedServer {
 public:
  struct Request {
    std::string method, target, body;
    std::map<std::string, std::string> headers;  // names in lower case
    std::string header(const std::string& name) const {
      auto found = headers.find(name);
      return found == headers.end() ? "" : found->second;
    }
  };
  struct Response {
    static constexpr size_t kNever = std::numeric_limits<size_t>::max();
    int status = 200;
    std::vector<std::string> headers = {};  // "Name: value"
    std::string body = {};
    size_t close_after = kNever;  // body bytes, then the connection ends
    size_t stall_after = kNever;  // body bytes, then nothing until the client leaves
    bool no_answer = false;       // takes the request and says nothing
    bool with_length = true;      // sends Content-Length
    std::string raw = {};         // these bytes instead of all that, then the end of the connection
  };
  using Handler = std::function<Response(const Request&)>;

  explicit ScriptedServer(Handler handler) : handler_(std::move(handler)) {
    listener_ = Fd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof address;
    auto* where = reinterpret_cast<sockaddr*>(&address);
    HYDRANT_CHECK(!::bind(listener_.get(), where, size) && !::listen(listener_.get(), 64) &&
                      !::getsockname(listener_.get(), where, &size),
                  "no loopback");
    port_ = ntohs(address.sin_port);
    acceptor_ = std::jthread([this] { accept_all(); });
  }
  ~ScriptedServer() {
    ::shutdown(listener_.get(), SHUT_RDWR);
    acceptor_.join();
    for (auto& connection : connections_) ::shutdown(connection.fd.get(), SHUT_RDWR);
    for (auto& connection : connections_) connection.thread.join();
  }

  std::string host() const { return "127.0.0.1:" + std::to_string(port_); }
  std::string url(const std::string& path = "/") const { return "http://" + host() + path; }
  size_t connections() const {
    std::lock_guard lock(mutex_);
    return connections_.size();
  }
  std::vector<Request> requests() const {
    std::lock_guard lock(mutex_);
    return requests_;
  }

  // `content` as a good server gives it: 206 for a range, 200 without one, 416 beyond the end.
  static Response serve(const Request& request, const std::string& content) {
    auto range = request.header("range");
    if (range.empty()) return {.body = content};
    size_t first = std::stoull(range.substr(6)), last = std::stoull(range.substr(range.find('-') + 1));
    auto total = std::to_string(content.size());
    if (first >= content.size()) return {.status = 416, .headers = {"Content-Range: bytes */" + total}};
    last = std::min(last, content.size() - 1);
    return {.status = 206,
            .headers = {"Content-Range: bytes " + std::to_string(first) + "-" + std::to_string(last) + "/" + total},
            .body = content.substr(first, last - first + 1)};
  }

 private:
  struct Connection {
    Fd fd;
    std::jthread thread;
  };

  void accept_all() {
    for (;;) {
      Fd fd(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC));
      if (!fd) return;
      std::lock_guard lock(mutex_);
      auto& connection = connections_.emplace_back();
      connection.fd = std::move(fd);
      connection.thread = std::jthread([this, number = connection.fd.get()] {
        serve_connection(number);
        ::shutdown(number, SHUT_RDWR);
      });
    }
  }
  static bool send_all(int fd, std::string_view text) {
    while (!text.empty()) {
      ssize_t n = ::send(fd, text.data(), text.size(), MSG_NOSIGNAL);
      if (n <= 0) return false;
      text.remove_prefix(static_cast<size_t>(n));
    }
    return true;
  }
  static void wait_for_hangup(int fd) {
    pollfd gone{.fd = fd, .events = POLLRDHUP, .revents = 0};
    while (::poll(&gone, 1, -1) < 0) continue;
  }
  static bool read_more(int fd, std::string& text) {
    char buffer[16384];
    ssize_t n = ::recv(fd, buffer, sizeof buffer, 0);
    if (n > 0) text.append(buffer, static_cast<size_t>(n));
    return n > 0;
  }
  void serve_connection(int fd) {
    for (std::string pending;;) {
      size_t end;
      while ((end = pending.find("\r\n\r\n")) == pending.npos)
        if (!read_more(fd, pending)) return;
      auto request = parse(pending.substr(0, end + 2));
      pending.erase(0, end + 4);
      size_t length = request.header("content-length").empty() ? 0 : std::stoull(request.header("content-length"));
      while (pending.size() < length)
        if (!read_more(fd, pending)) return;
      request.body = pending.substr(0, length);
      pending.erase(0, length);
      {
        std::lock_guard lock(mutex_);
        requests_.push_back(request);
      }
      if (!answer(fd, request, handler_(request))) return;
    }
  }
  static bool answer(int fd, const Request& request, const Response& response) {
    if (response.no_answer) return wait_for_hangup(fd), false;
    if (!response.raw.empty()) return send_all(fd, response.raw), false;
    std::string head = "HTTP/1.1 " + std::to_string(response.status) + " X\r\n";
    for (const auto& line : response.headers) head += line + "\r\n";
    if (response.with_length) head += "Content-Length: " + std::to_string(response.body.size()) + "\r\n";
    if (!send_all(fd, head + "\r\n")) return false;
    if (request.method == "HEAD") return true;
    auto cut = std::min({response.close_after, response.stall_after, response.body.size()});
    if (!send_all(fd, std::string_view(response.body).substr(0, cut))) return false;
    if (response.stall_after != Response::kNever) return wait_for_hangup(fd), false;
    return response.close_after == Response::kNever && response.with_length;
  }
  static Request parse(const std::string& text) {
    Request out;
    auto line_end = text.find("\r\n");
    auto line = text.substr(0, line_end);
    out.method = line.substr(0, line.find(' '));
    out.target = line.substr(out.method.size() + 1, line.rfind(' ') - out.method.size() - 1);
    for (size_t at = line_end + 2; at < text.size();) {
      auto end = text.find("\r\n", at);
      auto field = text.substr(at, end - at);
      at = end + 2;
      auto colon = field.find(": ");
      if (colon == field.npos) continue;
      auto name = field.substr(0, colon);
      for (char& c : name) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
      out.headers[name] = field.substr(colon + 2);
    }
    return out;
  }

  const Handler handler_;  // called by one thread a connection
  Fd listener_;
  uint16_t port_ = 0;
  mutable std::mutex mutex_;
  std::list<Connection> connections_;  // all there ever were; descriptors close with the server
  std::vector<Request> requests_;
  std::jthread acceptor_;
};

}  // namespace hydrant::source
