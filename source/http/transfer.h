// One HTTP exchange over libcurl: request out, head and body in, no redirects, no retries. Internal to source/http; all
// of libcurl that the project sees is in transfer.cpp.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "base/guarded.h"
#include "source/http/http_client.h"

namespace hydrant::source {

// Connections kept alive, by origin. Each stands in a libcurl handle of its own, so a lease is the right to use one
// connection from one thread. Thread-safe.
class ConnectionPool {
 public:
  explicit ConnectionPool(size_t idle_per_origin);
  ~ConnectionPool();

  struct Connection;
  class Lease {
   public:
    Lease(ConnectionPool& pool, std::string origin, std::unique_ptr<Connection> connection);
    Lease(const Lease&) = delete;
    ~Lease();  // gives it back
    Connection& operator*() { return *connection_; }

   private:
    ConnectionPool& pool_;
    const std::string origin_;
    std::unique_ptr<Connection> connection_;
  };
  Lease take(const std::string& origin);

  // Origins that take no HTTP/1.1: asked by HTTP/2 from the first try on.
  bool needs_http2(const std::string& origin);
  void note_http2(const std::string& origin);

 private:
  void give_back(const std::string& origin, std::unique_ptr<Connection> connection);

  struct Idle {
    std::map<std::string, std::vector<std::unique_ptr<Connection>>> by_origin;
    size_t count = 0;
  };
  const size_t idle_per_origin_;
  Guarded<Idle> idle_;
  Guarded<std::set<std::string>> http2_;
};

// When a request is asked a second time (source/http/hedging.h).
struct Hedge {
  std::optional<Duration> after = {};  // without an answer; nothing: never
  std::function<bool()> allowed = {};  // asked then
};

// Errors as HttpClient::send has them. `host` may be null.
Result<HttpHead> transfer(ConnectionPool& pool, const HttpOptions& options, const HttpRequest& request,
                          const std::string& url, const Authorization& authorization, const HostOptions* host,
                          const Hedge& hedge, const BodySink& sink);

// Where `location` leads from `base`. kDenied when it leaves TLS.
Result<std::string> redirect_target(const std::string& base, const std::string& location);

}  // namespace hydrant::source
