#include "source/http/transfer.h"

#include <curl/curl.h>

#include <algorithm>
#include <cctype>

#include "base/check.h"
#include "base/free_with.h"
#include "proto/http_header.h"
#include "proto/reference.h"
#include "source/source.h"

namespace hydrant::source {

namespace {

constexpr size_t kMaxHeaders = 256;
constexpr size_t kMaxHeaderBytes = 64 << 10;
constexpr size_t kMaxErrorBody = 64 << 10;
constexpr size_t kMaxIdle = 64;  // kept connections, all origins together
constexpr long kReceiveBuffer = 256 << 10;
constexpr long kSendBuffer = 256 << 10;

using Easy = std::unique_ptr<CURL, FreeWith<curl_easy_cleanup>>;
using Multi = std::unique_ptr<CURLM, FreeWith<curl_multi_cleanup>>;
using HeaderList = std::unique_ptr<curl_slist, FreeWith<curl_slist_free_all>>;
using Url = std::unique_ptr<CURLU, FreeWith<curl_url_cleanup>>;

std::string part(const Url& url, CURLUPart which) {
  char* text = nullptr;
  if (curl_url_get(url.get(), which, &text, 0) != CURLUE_OK) return {};
  std::string out(text);
  curl_free(text);
  return out;
}

Url parse_url(const std::string& text) {
  Url url(curl_url());
  HYDRANT_CHECK(url, "out of memory");
  if (curl_url_set(url.get(), CURLUPART_URL, text.c_str(), 0) != CURLUE_OK) url.reset();
  return url;
}

std::string lower(std::string_view text) {
  std::string out(text);
  for (char& c : out) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return out;
}

// What libcurl's callbacks fill: one request and its answer, under way in `multi` until it is destroyed. Two that ask
// for the same are rivals; the answer that begins first is the one, and the other is lost.
struct Exchange {
  enum class Role { kFirst, kSecond };

  Exchange(CURLM* multi_handle, const HttpRequest& its_request, const BodySink& body_sink, Role its_role)
      : multi(multi_handle), role(its_role), easy(curl_easy_init()), request(its_request), sink(body_sink) {
    HYDRANT_CHECK(easy, "out of memory");
  }
  // Closes the connection when the exchange is not over.
  ~Exchange() { curl_multi_remove_handle(multi, easy.get()); }

  CURLM* const multi;
  const Role role;
  const Easy easy;
  const HttpRequest& request;
  const BodySink& sink;
  char error_text[CURL_ERROR_SIZE] = "";
  HttpHead head;
  size_t header_bytes = 0;
  const Instant asked = Clock::system().now();
  Instant last_byte = asked;
  bool begun = false;     // the final answer's first line is here
  bool enough = false;    // whoever reads has all it wanted: the transfer's end is no failure
  bool too_long = false;  // headers without bound
  Exchange* rival = nullptr;
  bool lost = false;  // to the rival
  std::optional<Error> sink_error;
  std::optional<Error> upload_error;
  uint64_t uploaded = 0;  // bytes that libcurl has taken

  bool header(std::string_view line) {
    if (lost) return false;
    last_byte = Clock::system().now();
    while (!line.empty() && (line.back() == '\r' || line.back() == '\n')) line.remove_suffix(1);
    if (line.starts_with("HTTP/")) {  // the final answer; a 100 may have gone before
      head.headers.clear();
      header_bytes = 0;
      return begin(line);
    }
    header_bytes += line.size();
    too_long = header_bytes > kMaxHeaderBytes || head.headers.size() >= kMaxHeaders;
    if (too_long) return false;
    auto colon = line.find(':');
    if (colon == line.npos) return true;
    auto value = line.substr(colon + 1);
    while (!value.empty() && (value.front() == ' ' || value.front() == '\t')) value.remove_prefix(1);
    while (!value.empty() && (value.back() == ' ' || value.back() == '\t')) value.remove_suffix(1);
    auto& field = head.headers[lower(line.substr(0, colon))];
    if (!field.empty()) field += ", ";
    field += value;
    return true;
  }

  // "HTTP/1.1 206 Partial Content".
  bool begin(std::string_view line) {
    const size_t space = line.find(' ');
    const char kind = space == line.npos || space + 1 >= line.size() ? '0' : line[space + 1];
    if (kind == '1') return true;
    begun = true;
    head.first_byte = last_byte - asked;
    if (!rival) return true;
    // A refusal may be for asking twice.
    Exchange& loser = role == Role::kSecond && kind >= '4' ? *this : *rival;
    loser.lost = true;
    return !lost;
  }

  // The server has sent all that it has for now.
  Result<> pause() {
    if (head.status < 200 || head.status > 299 || enough) return {};
    HYDRANT_TRY_VOID(sink(head, {}));
    return {};
  }

  bool body(Bytes piece) {
    if (head.status == 0) {
      long status = 0;
      curl_easy_getinfo(easy.get(), CURLINFO_RESPONSE_CODE, &status);
      head.status = static_cast<int>(status);
    }
    if (head.status < 200 || head.status > 299) {
      last_byte = Clock::system().now();
      auto room = kMaxErrorBody - head.error_body.size();
      head.error_body += as_text(piece.first(std::min(room, piece.size())));
      enough = head.error_body.size() == kMaxErrorBody;
      return !enough;
    }
    auto more = sink(head, piece);
    // After the sink: the time it takes to decode and to write is no stall of the server's.
    last_byte = Clock::system().now();
    if (!more) {
      sink_error = std::move(more.error());
      sink_error->retry = false;  // whatever the sink means by it, this transfer is not to be repeated
      return false;
    }
    enough = !*more;
    return *more;
  }

  // Fills what it can of `out`; nothing at the end.
  Result<size_t> upload(MutableBytes out) {
    const size_t size = std::min<uint64_t>(out.size(), request.upload->size() - uploaded);
    const ReadRequest next{{uploaded, uploaded + size}, request.patience.deadline, request.patience.stop};
    HYDRANT_TRY(const Buffer bytes, size > 0 ? read_all(*request.upload, next) : Buffer());
    std::copy(bytes.begin(), bytes.end(), out.begin());
    uploaded += size;
    last_byte = Clock::system().now();
    return size;
  }
};

size_t on_header(char* data, size_t size, size_t count, void* exchange) {
  return static_cast<Exchange*>(exchange)->header({data, size * count}) ? size * count : 0;
}

size_t on_body(char* data, size_t size, size_t count, void* exchange) {
  auto* self = static_cast<Exchange*>(exchange);
  auto piece = std::as_bytes(std::span(data, size * count));
  // Nothing may be thrown through libcurl's C frames.
  try {
    return self->body(piece) ? piece.size() : CURL_WRITEFUNC_ERROR;
  } catch (const std::exception& thrown) {
    self->sink_error = Error{.code = Code::kIo, .what = thrown.what()};
    return CURL_WRITEFUNC_ERROR;
  }
}

size_t on_upload(char* data, size_t size, size_t count, void* exchange) {
  auto* self = static_cast<Exchange*>(exchange);
  try {
    auto taken = self->upload(std::as_writable_bytes(std::span(data, size * count)));
    if (taken) return *taken;
    self->upload_error = std::move(taken.error());
  } catch (const std::exception& thrown) {
    self->upload_error = Error{.code = Code::kIo, .what = thrown.what()};
  }
  return CURL_READFUNC_ABORT;
}

// A kept connection was closed by the server meanwhile: libcurl sends the body once more.
int on_rewind(void* exchange, curl_off_t offset, int origin) {
  if (origin != SEEK_SET || offset < 0) return CURL_SEEKFUNC_FAIL;
  static_cast<Exchange*>(exchange)->uploaded = static_cast<uint64_t>(offset);
  return CURL_SEEKFUNC_OK;
}

}  // namespace

// The multi handle keeps the connection; the easy handle, with its buffers, lives as long as its exchange. Driving it
// through the multi interface instead of curl_easy_perform gives waits that a stop token ends at once.
struct ConnectionPool::Connection {
  Connection() : multi(curl_multi_init()) {
    HYDRANT_CHECK(multi, "out of memory");
    // Two while a request is out twice: else the one that answers would be closed for the other's sake.
    curl_multi_setopt(multi.get(), CURLMOPT_MAXCONNECTS, 2L);
  }
  const Multi multi;
};

namespace {

// What libcurl's failure means. Its own sentences name hosts and never URLs.
Error curl_error(CURLcode code, const std::string& origin, const char* detail) {
  std::string reason = *detail ? detail : curl_easy_strerror(code);
  auto unreachable = [&](const std::string& why, bool retry) {
    return Error{.code = Code::kUnreachable, .what = origin + " is unreachable: " + why, .sys = 0, .retry = retry};
  };
  switch (code) {
    case CURLE_COULDNT_RESOLVE_HOST: return unreachable("its host name is not found", true);
    case CURLE_COULDNT_RESOLVE_PROXY: return unreachable("the proxy's host name is not found", true);
    case CURLE_COULDNT_CONNECT: return unreachable("connection refused, or no route", true);
    case CURLE_OPERATION_TIMEDOUT: return unreachable("no connection in time", true);
    case CURLE_PEER_FAILED_VERIFICATION:
    case CURLE_SSL_CACERT_BADFILE:
    case CURLE_SSL_CERTPROBLEM:
    case CURLE_SSL_ISSUER_ERROR: return unreachable("TLS certificate is not trusted: " + reason, false);
    case CURLE_SSL_CONNECT_ERROR:
      return unreachable("TLS does not come up: " + reason + " (does it speak plain HTTP?)", false);
    case CURLE_URL_MALFORMAT:
    case CURLE_UNSUPPORTED_PROTOCOL: return Error{.code = Code::kInvalid, .what = origin + ": malformed URL"};
    case CURLE_WEIRD_SERVER_REPLY:
      return Error{.code = Code::kUnsupported, .what = origin + ": what answers there does not speak HTTP"};
    default: return unreachable("connection broke: " + reason, true);
  }
}

// The exchanges of one transfer: one, or two for a while.
class Race {
 public:
  using Second = std::function<std::unique_ptr<Exchange>()>;

  explicit Race(std::unique_ptr<Exchange> first) : first_(std::move(first)) {}

  // That answers, or will.
  Exchange& leader() { return *first_; }
  bool may_double() const { return !second_ && !first_->begun; }
  void add(std::unique_ptr<Exchange> second) {
    second_ = std::move(second);
    second_->rival = first_.get();
    first_->rival = second_.get();
  }
  // Lets go of who has lost.
  void settle() {
    if (!second_) return;
    if (second_->lost) return drop_second();
    if (first_->lost) std::swap(first_, second_), drop_second();
  }
  // libcurl is done with `easy`: whether that ends the transfer.
  bool ends(CURL* easy, CURLcode code) {
    if (!second_) return true;
    const bool is_first = first_->easy.get() == easy;
    Exchange& done = is_first ? *first_ : *second_;
    // One that broke before it was answered leaves it to the other.
    if (!done.begun && code != CURLE_OK) done.lost = true;
    settle();
    return first_->easy.get() == easy;
  }

 private:
  void drop_second() {
    first_->rival = nullptr;
    second_.reset();
  }

  std::unique_ptr<Exchange> first_, second_;
};

// Runs until libcurl is done with the transfer, or patience ends.
Result<CURLcode> drive(CURLM* multi, Race& race, const Race::Second& second, const HttpOptions& options,
                       const Hedge& hedge, const Patience& patience, const std::string& origin) {
  std::stop_callback wake(patience.stop, [&] { curl_multi_wakeup(multi); });
  Deadline doubled(hedge.after ? race.leader().asked + *hedge.after : Instant::max());
  for (;;) {
    int running = 0, queued = 0;
    if (auto code = curl_multi_perform(multi, &running); code != CURLM_OK)
      return fail(Code::kIo, origin + ": " + curl_multi_strerror(code));
    race.settle();
    while (CURLMsg* message = curl_multi_info_read(multi, &queued)) {
      const CURLcode result = message->data.result;  // the message goes with its exchange
      if (message->msg == CURLMSG_DONE && race.ends(message->easy_handle, result)) return result;
    }
    if (patience.stop.stop_requested()) return fail(Code::kCancelled, origin + ": cancelled");
    if (patience.deadline.passed()) return fail(Code::kTooSlow, origin + ": no answer by the deadline");
    if (doubled.passed()) {
      doubled = Deadline(Instant::max());
      if (race.may_double() && hedge.allowed()) {
        race.add(second());
        continue;
      }
    }
    Exchange& exchange = race.leader();
    Deadline stall(exchange.last_byte + options.stall_timeout);
    if (stall.passed())
      return fail(Error{.code = Code::kTooSlow,
                        .what = origin + ": no byte for " + std::to_string(options.stall_timeout.count()) + " ms",
                        .sys = 0,
                        .retry = true});
    int ready = 0;
    curl_multi_poll(multi, nullptr, 0, 0, &ready);
    if (ready > 0) continue;
    if (auto paused = exchange.pause(); !paused) {
      paused.error().retry = false;  // as when the sink fails in the middle of the body
      return fail(std::move(paused).error());
    }
    // libcurl wakes earlier for timers of its own.
    curl_multi_poll(multi, nullptr, 0, patience.deadline.sooner(stall).sooner(doubled).left_ms(), nullptr);
  }
}

void set_text(CURL* easy, CURLoption option, const std::string& text) {
  if (!text.empty()) curl_easy_setopt(easy, option, text.c_str());
}

void set_host_options(CURL* easy, const HostOptions& host) {
  if (!host.ca_pem.empty()) {
    // Takes the place of the bundle; the system's directory of certificates stays.
    curl_blob pem{const_cast<char*>(host.ca_pem.data()), host.ca_pem.size(), CURL_BLOB_NOCOPY};
    curl_easy_setopt(easy, CURLOPT_CAINFO_BLOB, &pem);
  }
  set_text(easy, CURLOPT_SSLCERT, host.client_cert);
  set_text(easy, CURLOPT_SSLKEY, host.client_key);
  if (host.skip_verify) {
    curl_easy_setopt(easy, CURLOPT_SSL_VERIFYPEER, 0L);
    curl_easy_setopt(easy, CURLOPT_SSL_VERIFYHOST, 0L);
  }
  if (!host.proxy.empty()) {  // whatever exceptions there are for others
    curl_easy_setopt(easy, CURLOPT_PROXY, host.proxy.c_str());
    curl_easy_setopt(easy, CURLOPT_NOPROXY, "");
  }
  if (host.connect_timeout.count() > 0)
    curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS, static_cast<long>(host.connect_timeout.count()));
}

void set_request_body(Exchange& exchange) {
  CURL* easy = exchange.easy.get();
  const HttpRequest& request = exchange.request;
  const uint64_t size = request.upload ? request.upload->size() : request.body.size();
  curl_easy_setopt(easy, CURLOPT_CUSTOMREQUEST, request.method.c_str());
  curl_easy_setopt(easy, CURLOPT_POST, 1L);
  curl_easy_setopt(easy, CURLOPT_POSTFIELDSIZE_LARGE, static_cast<curl_off_t>(size));
  if (!request.upload) {
    curl_easy_setopt(easy, CURLOPT_POSTFIELDS, request.body.c_str());
    return;
  }
  curl_easy_setopt(easy, CURLOPT_UPLOAD_BUFFERSIZE, kSendBuffer);
  curl_easy_setopt(easy, CURLOPT_READFUNCTION, on_upload);
  curl_easy_setopt(easy, CURLOPT_READDATA, &exchange);
  curl_easy_setopt(easy, CURLOPT_SEEKFUNCTION, on_rewind);
  curl_easy_setopt(easy, CURLOPT_SEEKDATA, &exchange);
}

void set_options(Exchange& exchange, const HttpOptions& options, const std::string& url, const HostOptions* host,
                 const HeaderList& headers, long version) {
  CURL* easy = exchange.easy.get();
  const HttpRequest& request = exchange.request;
  curl_easy_setopt(easy, CURLOPT_URL, url.c_str());
  curl_easy_setopt(easy, CURLOPT_PATH_AS_IS, 1L);  // a signature covers the path as it was written
  curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http,https");
  curl_easy_setopt(easy, CURLOPT_HTTP_VERSION, version);
  curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
  // Leave a resolver thread that hangs in DNS behind instead of waiting for it past the deadline.
  curl_easy_setopt(easy, CURLOPT_QUICK_EXIT, 1L);
  curl_easy_setopt(easy, CURLOPT_TCP_KEEPALIVE, 1L);
  curl_easy_setopt(easy, CURLOPT_SUPPRESS_CONNECT_HEADERS, 1L);
  curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS, static_cast<long>(options.connect_timeout.count()));
  curl_easy_setopt(easy, CURLOPT_BUFFERSIZE, kReceiveBuffer);
  curl_easy_setopt(easy, CURLOPT_USERAGENT, options.user_agent.c_str());
  curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, exchange.error_text);
  set_text(easy, CURLOPT_CAINFO, options.ca_file);
  curl_easy_setopt(easy, CURLOPT_HTTPHEADER, headers.get());
  set_text(easy, CURLOPT_PROXY, options.proxy);
  set_text(easy, CURLOPT_NOPROXY, options.no_proxy);
  // No proxy reaches this machine's own loopback for us.
  auto origin = origin_of(url);
  if (proto::is_loopback_host(origin.substr(origin.find("://") + 3))) curl_easy_setopt(easy, CURLOPT_PROXY, "");
  if (!options.netrc.empty() && request.netrc) {
    curl_easy_setopt(easy, CURLOPT_NETRC, CURL_NETRC_OPTIONAL);
    curl_easy_setopt(easy, CURLOPT_NETRC_FILE, options.netrc.c_str());
  }
  if (host) set_host_options(easy, *host);
  if (request.method != "GET") set_request_body(exchange);
  curl_easy_setopt(easy, CURLOPT_HEADERFUNCTION, on_header);
  curl_easy_setopt(easy, CURLOPT_HEADERDATA, &exchange);
  curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, on_body);
  curl_easy_setopt(easy, CURLOPT_WRITEDATA, &exchange);
}

Result<HeaderList> header_list(const HttpRequest& request, const Authorization& authorization,
                               const HostOptions* host) {
  std::vector<std::string> lines = request.headers;
  if (host) lines.insert(lines.end(), host->headers.begin(), host->headers.end());
  if (request.method != "GET") lines.push_back("Expect:");  // libcurl would wait for a 100 before a large body
  if (request.range) lines.push_back("Range: " + proto::range_header(*request.range));
  if (!authorization.value.empty()) lines.push_back("Authorization: " + authorization.value);
  lines.insert(lines.end(), authorization.headers.begin(), authorization.headers.end());
  HeaderList list;
  for (const auto& line : lines) {
    // A line break in a token would be a header of its own choosing.
    if (line.find_first_of(std::string_view("\r\n\0", 3)) != line.npos)
      return fail(Code::kInvalid, "a request header would hold a line break");
    curl_slist* longer = curl_slist_append(list.get(), line.c_str());
    HYDRANT_CHECK(longer, "out of memory");
    list.release();
    list.reset(longer);
  }
  return list;
}

// What came of a request, and of how it was asked.
struct Answer {
  Result<HttpHead> head;
  bool may_want_http2 = false;  // nothing of the request was served, as by a server that takes no HTTP/1.1
  bool http2 = false;           // it was answered by HTTP/2
};

Result<HttpHead> conclude(Exchange& exchange, Result<CURLcode> code, const std::string& origin) {
  if (exchange.sink_error) return fail(std::move(*exchange.sink_error));
  if (exchange.upload_error) return fail(std::move(*exchange.upload_error));
  if (exchange.too_long) return fail(Code::kCorrupt, origin + ": answer's header is too long");
  if (!code) return fail(std::move(code.error()));
  if (*code != CURLE_OK && !exchange.enough) return fail(curl_error(*code, origin, exchange.error_text));

  CURL* easy = exchange.easy.get();
  long status = 0;
  curl_off_t retry_after = 0;
  curl_easy_getinfo(easy, CURLINFO_RESPONSE_CODE, &status);
  curl_easy_getinfo(easy, CURLINFO_RETRY_AFTER, &retry_after);
  exchange.head.status = static_cast<int>(status);
  if (retry_after > 0) exchange.head.retry_after = std::chrono::seconds(retry_after);
  return std::move(exchange.head);
}

// The request and its answer on a connection of `multi`; `configure` sets an exchange up.
Answer converse(CURLM* multi, const HttpOptions& options, const HttpRequest& request, const std::string& origin,
                const Hedge& hedge, const std::function<void(Exchange&)>& configure, const BodySink& sink) {
  const auto begin = [&](Exchange::Role role) {
    auto exchange = std::make_unique<Exchange>(multi, request, sink, role);
    configure(*exchange);
    curl_multi_add_handle(multi, exchange->easy.get());
    return exchange;
  };
  Race race(begin(Exchange::Role::kFirst));
  const auto code = drive(
      multi, race, [&] { return begin(Exchange::Role::kSecond); }, options, hedge, request.patience, origin);
  Exchange& exchange = race.leader();
  CURL* easy = exchange.easy.get();
  long version = 0, connects = 0;
  curl_easy_getinfo(easy, CURLINFO_HTTP_VERSION, &version);
  curl_easy_getinfo(easy, CURLINFO_NUM_CONNECTS, &connects);
  // A server without it ends the handshake, or takes the connection and closes it.
  const bool refused = code && (*code == CURLE_SSL_CONNECT_ERROR || (*code == CURLE_GOT_NOTHING && connects > 0));
  Answer answer{.head = conclude(exchange, code, origin)};
  const int status = answer.head ? answer.head->status : 0;
  answer.may_want_http2 = request.method == "GET" && (refused || status == 505 || status == 426);
  answer.http2 = answer.head && version == CURL_HTTP_VERSION_2_0;
  return answer;
}

}  // namespace

ConnectionPool::ConnectionPool(size_t idle_per_origin) : idle_per_origin_(idle_per_origin) {
  static const CURLcode kStarted = curl_global_init(CURL_GLOBAL_DEFAULT);
  HYDRANT_CHECK(kStarted == CURLE_OK, "libcurl does not start");
}
ConnectionPool::~ConnectionPool() = default;

ConnectionPool::Lease::Lease(ConnectionPool& pool, std::string origin, std::unique_ptr<Connection> connection)
    : pool_(pool), origin_(std::move(origin)), connection_(std::move(connection)) {}
ConnectionPool::Lease::~Lease() { pool_.give_back(origin_, std::move(connection_)); }

ConnectionPool::Lease ConnectionPool::take(const std::string& origin) {
  {
    auto idle = idle_.lock();
    auto found = idle->by_origin.find(origin);
    if (found != idle->by_origin.end()) {
      // The one used last: the others age, and the server closes them first.
      auto connection = std::move(found->second.back());
      found->second.pop_back();
      if (found->second.empty()) idle->by_origin.erase(found);
      --idle->count;
      return Lease(*this, origin, std::move(connection));
    }
  }
  return Lease(*this, origin, std::make_unique<Connection>());
}

void ConnectionPool::give_back(const std::string& origin, std::unique_ptr<Connection> connection) {
  auto idle = idle_.lock();
  auto& list = idle->by_origin[origin];
  if (list.size() < idle_per_origin_ && idle->count < kMaxIdle) {
    list.push_back(std::move(connection));
    ++idle->count;
  } else if (list.empty()) {
    idle->by_origin.erase(origin);
  }
  // A connection that is not kept is closed by its destructor, after the lock: parameters outlive the function's
  // locals.
}

bool ConnectionPool::needs_http2(const std::string& origin) { return http2_.lock()->contains(origin); }
void ConnectionPool::note_http2(const std::string& origin) { http2_.lock()->insert(origin); }

Result<HttpHead> transfer(ConnectionPool& pool, const HttpOptions& options, const HttpRequest& request,
                          const std::string& url, const Authorization& authorization, const HostOptions* host,
                          const Hedge& hedge, const BodySink& sink) {
  auto origin = origin_of(url);
  if (origin.empty()) return fail(Code::kInvalid, proto::url_without_secrets(url) + ": malformed URL");
  if (request.patience.stop.stop_requested()) return fail(Code::kCancelled, origin + ": cancelled");
  if (request.patience.deadline.passed()) return fail(Code::kTooSlow, origin + ": no answer by the deadline");

  HYDRANT_TRY(HeaderList headers, header_list(request, authorization, host));
  auto lease = pool.take(origin);
  const auto ask = [&](long version) {
    Answer answer =
        converse((*lease).multi.get(), options, request, origin, hedge,
                 [&](Exchange& exchange) { set_options(exchange, options, url, host, headers, version); }, sink);
    if (answer.head) answer.head->url = url;
    return answer;
  };
  // One transfer a connection, whatever the protocol: what HTTP/2 could share out is one window (decision 008).
  if (options.prefer_http2 || pool.needs_http2(origin)) return ask(CURL_HTTP_VERSION_2TLS).head;
  Answer answer = ask(CURL_HTTP_VERSION_1_1);
  if (!answer.may_want_http2 || !origin.starts_with("https:")) return std::move(answer.head);
  Answer second = ask(CURL_HTTP_VERSION_2TLS);
  if (!second.http2) return std::move(answer.head);
  pool.note_http2(origin);
  return std::move(second.head);
}

Result<std::string> redirect_target(const std::string& base, const std::string& location) {
  auto name = proto::url_without_secrets(base);
  Url url = parse_url(base);
  if (!url || location.empty() || curl_url_set(url.get(), CURLUPART_URL, location.c_str(), 0) != CURLUE_OK)
    return fail(Code::kCorrupt, name + ": redirects to nowhere");
  auto scheme = part(url, CURLUPART_SCHEME);
  if (scheme != "http" && scheme != "https") return fail(Code::kUnsupported, name + ": redirects to " + scheme + "://");
  if (scheme == "http" && base.starts_with("https://"))
    return fail(Code::kDenied, name + ": redirects from https to plain http");
  return part(url, CURLUPART_URL);
}

std::string origin_of(const std::string& text) {
  Url url = parse_url(text);
  if (!url) return {};
  auto port = part(url, CURLUPART_PORT);
  return part(url, CURLUPART_SCHEME) + "://" + part(url, CURLUPART_HOST) + (port.empty() ? "" : ":" + port);
}

}  // namespace hydrant::source
