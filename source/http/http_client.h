// HTTP over libcurl for threads that wait: a transfer runs in the caller's thread, on a kept-alive connection of a pool
// per origin. Nothing here logs, and no error text holds a query string, a user name or a token.
#pragma once

#include <chrono>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <stop_token>
#include <string>
#include <vector>

#include "base/byte_range.h"
#include "base/bytes.h"
#include "base/clock.h"
#include "base/error.h"

namespace hydrant::source {

struct HttpOptions {
  std::chrono::milliseconds connect_timeout{10'000};  // DNS, TCP and TLS together
  std::chrono::milliseconds stall_timeout{15'000};    // no byte for so long ends a transfer; it may be retried
  unsigned attempts = 5;                              // of one request, or in a row without progress of a read
  std::chrono::milliseconds first_backoff{100};       // doubles per attempt, with jitter
  std::chrono::milliseconds longest_backoff{5'000};
  size_t idle_per_origin = 16;       // kept connections
  size_t transfers_per_origin = 32;  // at a time; more wait for one to end
  bool prefer_http2 = false;         // over TLS; else an origin is asked by it when it takes no HTTP/1.1
  std::string ca_file = {};          // PEM; empty: the system's
  std::string user_agent = {};       // empty: "hydrant/<version>"
  std::string proxy = {};            // URL; empty: as the environment says
  std::string no_proxy = {};         // hosts, with commas between; empty: as the environment says
  std::string netrc = {};            // file with logins for requests that have no authorizer; empty: none
};

// How one host wants to be asked, where it differs from others.
struct HostOptions {
  std::string ca_pem = {};                        // certificates trusted beside the system's
  std::string client_cert = {}, client_key = {};  // PEM files; both or none
  bool skip_verify = false;                       // believe any certificate
  std::string proxy = {};                         // URL; empty: the client's
  std::vector<std::string> headers = {};          // "Name: value", with each request
  std::chrono::milliseconds connect_timeout{0};   // 0: the client's

  bool operator==(const HostOptions&) const = default;
};

class Blob;
class ConnectionPool;
class Hedging;
class Politeness;

// How long the work may take and whether anybody still wants it.
struct Patience {
  Deadline deadline;
  std::stop_token stop;
};

struct HttpHead {
  int status = 0;
  std::map<std::string, std::string> headers;  // names in lower case; repeated fields joined by ", "
  std::string url;                             // that answered, after redirects; may hold a signature
  std::optional<std::chrono::seconds> retry_after;
  std::string error_body;  // of a status other than 2xx: its first 64 KiB
  Duration first_byte{0};  // from the request to the answer's beginning

  std::string header(const std::string& lower_case_name) const;  // empty when missing
};

struct HttpRequest;

// What a request carries to be let in.
struct Authorization {
  std::string value = {};                 // of the Authorization header; empty sends none
  std::vector<std::string> headers = {};  // others that belong to it: "X-Amz-Date: …"
};

// Authorizes requests to one origin, and gets to see its refusals. Thread-safe.
class Authorizer {
 public:
  virtual ~Authorizer() = default;
  virtual Result<Authorization> authorize(const HttpRequest& request) = 0;
  // The origin refused a request that carried `used`: 400, 401, 403, or a redirect that leads nowhere. True when
  // authorize() has something else to offer now.
  virtual Result<bool> refused(const std::string& used, const HttpHead& answer, const Patience& patience) = 0;
  // How many refusals of one request it may learn from.
  virtual unsigned lessons() const { return 1; }
};

struct HttpRequest {
  std::string method = "GET";  // or "POST", "PUT"
  std::string url;
  std::vector<std::string> headers;  // "Accept: …"; sent to every hop
  std::string body;                  // of a POST or PUT
  Blob* upload = nullptr;            // its body instead: read while it is sent, from the start by each try
  std::optional<ByteRange> range;
  // Both for the origin of `url` alone: never for where it redirects.
  Authorizer* authorizer = nullptr;
  std::shared_ptr<const HostOptions> host = nullptr;  // null: nothing special; shared with whoever asks that host
  unsigned attempts = 0;                              // 0: the client's
  bool netrc = false;  // with the login that HttpOptions::netrc has for the host, of each hop
  Patience patience;
};

// Takes pieces of a 2xx body in order, the head beside. False ends the transfer early and well.
using BodySink = std::function<Result<bool>(const HttpHead& head, Bytes piece)>;

// Thread-safe.
class HttpClient {
 public:
  explicit HttpClient(HttpOptions options = {});
  ~HttpClient();
  HttpClient(const HttpClient&) = delete;

  // One try: authorization, asked again after refusals that the authorizer learns from, up to 5 redirects, no retries.
  // Any status is a success here; a sink's error is the result, with `retry` cleared. kUnreachable names the origin;
  // kTooSlow, kCancelled as Patience has it; a transfer that broke or stalled has `retry` set.
  Result<HttpHead> send(const HttpRequest& request, const BodySink& sink);

  struct Document {
    HttpHead head;
    std::string body;
  };
  // A small body in memory, with retries. More than `limit` bytes is kCorrupt. Every status is a success but those that
  // ask for a retry (408, 429, 5xx) until the attempts are used up.
  Result<Document> get(const HttpRequest& request, size_t limit);

  const HttpOptions& options() const { return options_; }
  // Ranges that were asked for twice, because the first answer did not begin (source/http/hedging.h).
  uint64_t hedged() const;

 private:
  HttpOptions options_;
  std::unique_ptr<ConnectionPool> pool_;
  std::unique_ptr<Politeness> politeness_;
  std::unique_ptr<Hedging> hedging_;
};

// The error of a status that is none of success, `what` in front. Sets `retry` for 408, 429 and 5xx.
Error status_error(const HttpHead& head, const std::string& what);

// "https://registry.example:5000", for the pool and for people; empty when `url` is none.
std::string origin_of(const std::string& url);

}  // namespace hydrant::source
