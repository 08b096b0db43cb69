#include "source/http/http_blob.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>

#include "base/file.h"
#include "base/temporary_directory.h"
#include "source/http/scripted_server.h"

namespace hydrant::source {
namespace {

using namespace std::chrono_literals;
using ::testing::HasSubstr;
using ::testing::Not;
using Request = ScriptedServer::Request;
using Response = ScriptedServer::Response;

std::string content_of(size_t size) {
  std::string out(size, '\0');
  uint64_t state = 12345;
  for (char& c : out) c = static_cast<char>((state = state * 6364136223846793005u + 1442695040888963407u) >> 56);
  return out;
}

const std::string kContent = content_of(300'000);

Deadline soon() { return Deadline::after(20s); }

// Quick to retry; a stall is called one only where a test makes it, so that a busy machine looks like none.
std::shared_ptr<HttpClient> fast_client(std::chrono::milliseconds stall = 15s) {
  return std::make_shared<HttpClient>(HttpOptions{.connect_timeout = 10s,
                                                  .stall_timeout = stall,
                                                  .attempts = 4,
                                                  .first_backoff = 1ms,
                                                  .longest_backoff = 5ms,
                                                  .ca_file = {},
                                                  .user_agent = {}});
}

std::shared_ptr<HttpBlob> blob_at(const std::string& url, uint64_t size = kContent.size()) {
  return HttpBlob::immutable(fast_client(), {.url = url, .authorizer = {}, .name = {}}, size);
}

// The range's bytes, or the error.
Result<std::string> read(Blob& blob, ByteRange range, Deadline deadline = soon(), std::stop_token stop = {}) {
  auto bytes = read_all(blob, {.range = range, .deadline = deadline, .stop = stop});
  if (!bytes) return fail(bytes.error());
  return std::string(as_text(*bytes));
}

std::string slice(ByteRange range) { return kContent.substr(range.begin, range.size()); }

TEST(HttpBlob, OpenLearnsTheSizeAndReadDeliversExactlyTheRange) {
  ScriptedServer server([](const Request& r) { return ScriptedServer::serve(r, kContent); });
  auto blob = HttpBlob::open(fast_client(), {.url = server.url("/f"), .authorizer = {}, .name = {}}, soon());
  ASSERT_TRUE(blob) << blob.error().what;
  EXPECT_EQ((*blob)->size(), kContent.size());
  for (ByteRange range : {ByteRange{0, 1}, {1000, 250'001}, {299'999, 300'000}, {0, 300'000}, {7, 7}})
    EXPECT_EQ(read(**blob, range).value(), slice(range));
  EXPECT_EQ(read(**blob, {299'999, 300'001}).error().code, Code::kInvalid);
}

TEST(HttpBlob, CredentialsOfAUrlAreSentAndNotShown) {
  ScriptedServer server([](const Request& r) { return ScriptedServer::serve(r, kContent); });
  auto url = "http://ann:pw@" + server.host() + "/f?key=hush";
  auto blob = HttpBlob::open(fast_client(), {.url = url, .authorizer = {}, .name = {}}, soon());
  ASSERT_TRUE(blob);
  EXPECT_EQ(server.requests()[0].header("authorization"), "Basic YW5uOnB3");
  EXPECT_EQ((*blob)->describe(), server.url("/f"));
}

TEST(HttpBlob, LoginsOfNetrcAreForTheirHostAndHeadersForTheRequestsToIt) {
  TemporaryDirectory directory;
  const auto netrc = directory.path() + "/netrc";
  ASSERT_TRUE(write_file_atomic(netrc, as_bytes("machine 127.0.0.1 login ann password pw\n"), 0600));
  ScriptedServer elsewhere([](const Request& r) { return ScriptedServer::serve(r, "content"); });
  ScriptedServer server(
      [&](const Request&) -> Response { return {.status = 307, .headers = {"Location: " + elsewhere.url("/there")}}; });
  auto client = std::make_shared<HttpClient>(HttpOptions{.netrc = netrc});
  auto host = std::make_shared<const HostOptions>(HostOptions{.headers = {"X-Secret: yes"}});
  HttpBlob::Target target{.url = server.url("/x"), .authorizer = {}, .name = {}, .host = host, .netrc = true};
  ASSERT_TRUE(HttpBlob::open(client, target, soon()));
  EXPECT_EQ(server.requests()[0].header("authorization"), "Basic YW5uOnB3");
  EXPECT_EQ(server.requests()[0].header("x-secret"), "yes");
  EXPECT_EQ(elsewhere.requests()[0].header("x-secret"), "");
  target.netrc = false;
  ASSERT_TRUE(HttpBlob::open(client, target, soon()));
  EXPECT_EQ(server.requests()[1].header("authorization"), "") << "a token service is not to get it";
}

TEST(HttpBlob, OneThreadKeepsToOneConnection) {
  ScriptedServer server([](const Request& r) { return ScriptedServer::serve(r, kContent); });
  auto blob = blob_at(server.url());
  for (uint64_t i = 0; i < 20; ++i) ASSERT_TRUE(read(*blob, {i * 100, i * 100 + 100}));
  EXPECT_EQ(server.connections(), 1u);
  EXPECT_THAT(server.requests()[0].header("user-agent"), HasSubstr("hydrant/"));
}

TEST(HttpBlob, TheConnectionOfTheOpenIsTheFirstReadersToo) {
  ScriptedServer server([](const Request& r) { return ScriptedServer::serve(r, kContent); });
  auto blob =
      HttpBlob::open(std::make_shared<HttpClient>(), {.url = server.url(), .authorizer = {}, .name = {}}, soon());
  ASSERT_TRUE(blob);
  ASSERT_TRUE(read(**blob, {0, 100}));
  EXPECT_EQ(server.connections(), 1u);
}

TEST(HttpBlob, ManyThreadsReadAtOnce) {
  ScriptedServer server([](const Request& r) { return ScriptedServer::serve(r, kContent); });
  auto blob = blob_at(server.url());
  std::atomic<int> good = 0;
  {
    std::vector<std::jthread> threads;
    for (uint64_t t = 0; t < 8; ++t)
      threads.emplace_back([&, t] {
        for (uint64_t i = 0; i < 10; ++i) {
          ByteRange range{t * 1000 + i, t * 30'000 + 50'000};
          good += read(*blob, range).value_or("") == slice(range);
        }
      });
  }
  EXPECT_EQ(good, 80);
  EXPECT_LE(server.connections(), 8u);
}

TEST(HttpBlob, ABrokenTransferGoesOnAtTheByteItReached) {
  std::atomic<int> calls = 0;
  ScriptedServer server([&](const Request& r) {
    auto out = ScriptedServer::serve(r, kContent);
    if (calls++ < 3) out.close_after = 50'000;
    return out;
  });
  auto blob = blob_at(server.url());
  EXPECT_EQ(read(*blob, {100, 299'000}).value(), slice({100, 299'000}));
  EXPECT_EQ(server.requests()[1].header("range"), "bytes=50100-298999");
}

TEST(HttpBlob, AStalledTransferIsRetriedAndAStalledServerEndsAsTooSlow) {
  std::atomic<int> calls = 0;
  ScriptedServer server([&](const Request& r) {
    auto out = ScriptedServer::serve(r, kContent);
    if (calls++ == 0) out.stall_after = 10;
    if (r.target == "/dead") out.no_answer = true;
    return out;
  });
  auto impatient = [&](const std::string& path) {
    return HttpBlob::immutable(fast_client(200ms), {.url = server.url(path), .authorizer = {}, .name = {}},
                               kContent.size());
  };
  EXPECT_EQ(read(*impatient("/"), {0, 1000}).value(), slice({0, 1000}));
  auto dead = read(*impatient("/dead"), {0, 1000});
  ASSERT_FALSE(dead);
  EXPECT_EQ(dead.error().code, Code::kTooSlow);
  EXPECT_TRUE(dead.error().retry);
}

TEST(HttpBlob, TheDeadlineEndsAReadThatStalls) {
  ScriptedServer server([](const Request&) { return Response{.no_answer = true}; });
  auto client = std::make_shared<HttpClient>();  // stalls only after 15 s
  auto blob = HttpBlob::immutable(client, {.url = server.url(), .authorizer = {}, .name = {}}, 1000);
  auto begin = std::chrono::steady_clock::now();
  EXPECT_EQ(read(*blob, {0, 1000}, Deadline::after(100ms)).error().code, Code::kTooSlow);
  EXPECT_LT(std::chrono::steady_clock::now() - begin, 5s);
}

TEST(HttpBlob, AStopEndsAReadThatStallsAtOnce) {
  ScriptedServer server([](const Request& r) {
    auto out = ScriptedServer::serve(r, kContent);
    out.stall_after = 100;
    return out;
  });
  auto client = std::make_shared<HttpClient>();
  auto blob = HttpBlob::immutable(client, {.url = server.url(), .authorizer = {}, .name = {}}, kContent.size());
  std::stop_source stop;
  auto begin = std::chrono::steady_clock::now();
  size_t got = 0;
  auto result =
      blob->read({.range = {0, 1000}, .deadline = soon(), .stop = stop.get_token()}, [&](Bytes piece) -> Result<> {
        got += piece.size();
        stop.request_stop();
        return {};
      });
  EXPECT_EQ(result.error().code, Code::kCancelled);
  EXPECT_EQ(got, 100u);
  EXPECT_LT(std::chrono::steady_clock::now() - begin, 5s);
}

TEST(HttpBlob, BusyServersAreAskedAgainAndRetryAfterBeyondTheDeadlineIsNotWaitedFor) {
  std::atomic<int> calls = 0;
  ScriptedServer server([&](const Request& r) -> Response {
    if (r.target == "/later") return {.status = 429, .headers = {"Retry-After: 3600"}};
    if (r.target == "/dead") return {.status = 500};
    switch (calls++) {
      case 0: return {.status = 503};
      case 1: return {.status = 429};
      case 2: return {.status = 502};
      default: return ScriptedServer::serve(r, kContent);
    }
  });
  EXPECT_EQ(read(*blob_at(server.url()), {5, 10}).value(), slice({5, 10}));
  auto begin = std::chrono::steady_clock::now();
  auto later = read(*blob_at(server.url("/later")), {5, 10});
  EXPECT_EQ(later.error().code, Code::kBusy);
  EXPECT_TRUE(later.error().retry);
  EXPECT_LT(std::chrono::steady_clock::now() - begin, 10s);
  auto before = server.requests().size();
  EXPECT_EQ(read(*blob_at(server.url("/dead")), {5, 10}).error().code, Code::kIo);
  EXPECT_EQ(server.requests().size() - before, 4u);
}

TEST(HttpBlob, EachRefusalHasItsCodeAndIsNotRetried) {
  ScriptedServer server([](const Request& r) -> Response { return {.status = std::stoi(r.target.substr(1))}; });
  for (auto [status, code] : std::map<int, Code>{{401, Code::kUnauthorized},
                                                 {403, Code::kDenied},
                                                 {404, Code::kNotFound},
                                                 {410, Code::kGone},
                                                 {416, Code::kCorrupt},
                                                 {204, Code::kUnsupported}}) {
    auto before = server.requests().size();
    auto result = read(*blob_at(server.url("/" + std::to_string(status))), {0, 10});
    ASSERT_FALSE(result) << status;
    EXPECT_EQ(result.error().code, code) << status;
    EXPECT_EQ(server.requests().size() - before, 1u) << status;
  }
}

TEST(HttpBlob, WithoutRangesOnlyWhatBeginsAtZeroIsServed) {
  std::atomic<int> calls = 0;
  ScriptedServer server([&](const Request&) -> Response {
    Response out{.body = kContent};
    if (calls++ == 0) out.close_after = 200'000;
    return out;
  });
  auto blob = blob_at(server.url());
  // The first try breaks at 200 000; the second skips what the sink has.
  EXPECT_EQ(read(*blob, {0, 250'000}).value(), slice({0, 250'000}));
  auto middle = read(*blob, {10, 20});
  EXPECT_EQ(middle.error().code, Code::kUnsupported);
  EXPECT_THAT(middle.error().what, HasSubstr("no ranges"));
}

TEST(HttpBlob, AnswersForOtherBytesAreCorrupt) {
  ScriptedServer server([](const Request& r) -> Response {
    auto out = ScriptedServer::serve(r, kContent);
    if (r.target == "/shifted") out.headers = {"Content-Range: bytes 1-10/300000"};
    if (r.target == "/missing") out.headers = {};
    if (r.target == "/garbage") out.headers = {"Content-Range: bytes ten-twenty/many"};
    if (r.target == "/longer") out.body += "more";
    return out;
  });
  for (const char* path : {"/shifted", "/missing", "/garbage", "/longer"})
    EXPECT_EQ(read(*blob_at(server.url(path)), {0, 10}).error().code, Code::kCorrupt) << path;
  EXPECT_EQ(read(*blob_at(server.url("/fine"), 299'999), {0, 10}).error().code, Code::kCorrupt);
}

TEST(HttpBlob, AChangedObjectIsGone) {
  std::atomic<bool> changed = false;
  ScriptedServer server([&](const Request& r) -> Response {
    bool etag = r.target == "/etag";
    auto out = ScriptedServer::serve(r, !etag && changed ? kContent.substr(1) : kContent);
    if (etag) out.headers.push_back(changed ? "ETag: \"2\"" : "ETag: \"1\"");
    return out;
  });
  for (const char* path : {"/etag", "/size"}) {
    changed = false;
    auto blob = HttpBlob::open(fast_client(), {.url = server.url(path), .authorizer = {}, .name = {}}, soon());
    ASSERT_TRUE(blob);
    EXPECT_TRUE(read(**blob, {0, 10}));
    changed = true;
    EXPECT_EQ(read(**blob, {0, 10}).error().code, Code::kGone) << path;
  }
}

TEST(HttpBlob, AnswersThatDoNotTellTheirVersionAreNotMixedWithOthers) {
  std::atomic<bool> silent = false;
  ScriptedServer server([&](const Request& r) -> Response {
    auto out = ScriptedServer::serve(r, kContent);
    if (!silent)
      out.headers.push_back(r.target == "/etag" ? "ETag: \"1\"" : "Last-Modified: Sun, 06 Nov 1994 08:49:37 GMT");
    return out;
  });
  for (const char* path : {"/etag", "/date"}) {
    silent = false;
    auto blob = HttpBlob::open(fast_client(), {.url = server.url(path), .authorizer = {}, .name = {}}, soon());
    ASSERT_TRUE(blob);
    EXPECT_TRUE(read(**blob, {0, 10}));
    silent = true;
    EXPECT_EQ(read(**blob, {0, 10}).error().code, Code::kGone) << path;
  }
}

TEST(HttpBlob, TheVersionIsTheStrongEtagElseTheDate) {
  ScriptedServer server([&](const Request& r) -> Response {
    if (r.target == "/whole") return {.body = kContent};
    auto out = ScriptedServer::serve(r, kContent);
    if (r.target != "/none") out.headers.push_back("Last-Modified: Sun, 06 Nov 1994 08:49:37 GMT");
    if (r.target == "/strong") out.headers.push_back("ETag: \"1\"");
    if (r.target == "/weak") out.headers.push_back("ETag: W/\"1\"");
    return out;
  });
  auto version = [&](const char* path) {
    return HttpBlob::open(fast_client(), {.url = server.url(path), .authorizer = {}, .name = {}}, soon())
        .value()
        ->version();
  };
  EXPECT_EQ(version("/strong").validator, "\"1\"");
  EXPECT_EQ(version("/strong").modified, 784111777);
  EXPECT_EQ(version("/weak").validator, "Sun, 06 Nov 1994 08:49:37 GMT");
  EXPECT_EQ(version("/none").validator, "");
  EXPECT_EQ(version("/none").modified, 0);
  EXPECT_TRUE(version("/none").ranges);
  EXPECT_FALSE(version("/whole").ranges);
}

TEST(HttpBlob, OpenCopesWithEmptyObjectsAndServersWithoutRanges) {
  ScriptedServer server([](const Request& r) -> Response {
    if (r.target == "/empty") return ScriptedServer::serve(r, "");
    return {.body = kContent, .with_length = r.target != "/endless"};
  });
  auto open = [&](const char* path) {
    return HttpBlob::open(fast_client(), {.url = server.url(path), .authorizer = {}, .name = {}}, soon());
  };
  EXPECT_EQ(open("/empty").value()->size(), 0u);
  EXPECT_EQ(open("/whole").value()->size(), kContent.size());
  EXPECT_EQ(open("/endless").error().code, Code::kUnsupported);
}

// A registry at home that sends blob readers to a storage host with signed URLs.
class Key final : public Authorizer {
 public:
  Result<Authorization> authorize(const HttpRequest&) override { return Authorization{.value = "Bearer secret"}; }
  Result<bool> refused(const std::string&, const HttpHead&, const Patience&) override { return false; }
};

TEST(HttpBlob, ARedirectIsRememberedWithoutLeakingCredentialsAndAskedForAgainWhenItExpires) {
  std::atomic<int> signature = 1;
  ScriptedServer storage([&](const Request& r) -> Response {
    if (r.target != "/data?sig=" + std::to_string(signature)) return {.status = 403};
    return ScriptedServer::serve(r, kContent);
  });
  ScriptedServer home([&](const Request&) -> Response {
    return {.status = 307, .headers = {"Location: " + storage.url("/data?sig=" + std::to_string(signature))}};
  });
  auto blob = HttpBlob::immutable(
      fast_client(), {.url = home.url("/blob"), .authorizer = std::make_shared<Key>(), .name = {}}, kContent.size());
  for (int i = 0; i < 3; ++i) EXPECT_EQ(read(*blob, {3, 9}).value(), slice({3, 9}));
  EXPECT_EQ(home.requests().size(), 1u);
  signature = 2;
  EXPECT_EQ(read(*blob, {3, 9}).value(), slice({3, 9}));
  EXPECT_EQ(home.requests().size(), 2u);
  for (const auto& request : home.requests()) EXPECT_EQ(request.header("authorization"), "Bearer secret");
  for (const auto& request : storage.requests()) EXPECT_EQ(request.header("authorization"), "");
}

TEST(HttpBlob, ARedirectThatFailsInAnyWayIsForgotten) {
  std::string fault;  // of what the first redirect leads to, once it has been followed
  std::mutex mutex;
  ScriptedServer storage([&](const Request& r) -> Response {
    auto out = ScriptedServer::serve(r, kContent);
    std::lock_guard lock(mutex);
    if (fault.empty() || r.target != "/old") return out;
    if (fault == "stall") out.stall_after = 2;
    if (fault == "shifted") out.headers = {"Content-Range: bytes 1-10/300000"};
    if (fault == "400" || fault == "500") return {.status = std::stoi(fault)};
    return out;
  });
  ScriptedServer home([&](const Request&) -> Response {
    std::lock_guard lock(mutex);
    return {.status = 307, .headers = {"Location: " + storage.url(fault.empty() ? "/old" : "/new")}};
  });
  auto set_fault = [&](const std::string& text) {
    std::lock_guard lock(mutex);
    fault = text;
  };
  for (const char* text : {"400", "500", "stall", "shifted"}) {
    set_fault("");
    auto blob = HttpBlob::immutable(fast_client(300ms), {.url = home.url("/blob"), .authorizer = {}, .name = {}},
                                    kContent.size());
    EXPECT_EQ(read(*blob, {3, 9}).value_or(""), slice({3, 9})) << text;
    set_fault(text);
    const auto before = storage.requests().size();
    auto next = read(*blob, {3, 9});
    // Wrong bytes are the caller's to judge; its next read begins at the origin.
    if (text == std::string("shifted")) {
      EXPECT_EQ(next ? Code::kOk : next.error().code, Code::kCorrupt);
      next = read(*blob, {3, 9});
    }
    EXPECT_EQ(next.value_or(""), slice({3, 9})) << text;
    EXPECT_EQ(storage.requests().size() - before, 2u) << text;
  }
}

TEST(HttpBlob, RedirectsThatLeadNowhereEnd) {
  ScriptedServer server([&](const Request& r) -> Response {
    if (r.target == "/circle") return {.status = 302, .headers = {"Location: /circle"}};
    if (r.target == "/file") return {.status = 302, .headers = {"Location: file:///etc/passwd"}};
    return {.status = 302};
  });
  EXPECT_EQ(read(*blob_at(server.url("/circle")), {0, 1}).error().code, Code::kCorrupt);
  EXPECT_EQ(read(*blob_at(server.url("/file")), {0, 1}).error().code, Code::kUnsupported);
  EXPECT_EQ(read(*blob_at(server.url("/none")), {0, 1}).error().code, Code::kCorrupt);
}

TEST(HttpBlob, UnreachableOriginsAreNamedWithoutSecrets) {
  std::string gone;
  {
    ScriptedServer server([](const Request&) { return Response{}; });
    gone = server.host();
  }
  auto refused = read(*blob_at("http://user:pass@" + gone + "/f?token=hush"), {0, 1});
  EXPECT_EQ(refused.error().code, Code::kUnreachable);
  EXPECT_THAT(refused.error().what, HasSubstr(gone));
  EXPECT_THAT(refused.error().what, Not(HasSubstr("pass")));
  EXPECT_THAT(refused.error().what, Not(HasSubstr("hush")));
}

TEST(HttpBlob, WhatSpeaksNoHttpOrNoTlsIsSaidSo) {
  ScriptedServer server([](const Request& r) -> Response {
    if (r.target == "/header") {
      std::string flood = "HTTP/1.1 200 OK\r\n";
      for (int i = 0; i < 5000; ++i) flood += "X-" + std::to_string(i) + ": aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\n";
      return {.raw = flood + "\r\n"};
    }
    return {.raw = "220 mail.example ESMTP\r\n"};
  });
  EXPECT_FALSE(read(*blob_at(server.url("/mail")), {0, 1}));
  EXPECT_FALSE(read(*blob_at(server.url("/header")), {0, 1}));
}

TEST(HttpBlob, TheSinksErrorEndsTheReadAndIsItsResult) {
  ScriptedServer server([](const Request& r) { return ScriptedServer::serve(r, kContent); });
  auto blob = blob_at(server.url());
  auto result = blob->read({.range = {0, 1000}, .deadline = soon(), .stop = {}}, [](Bytes) -> Result<> {
    return fail(Error{.code = Code::kNoSpace, .what = "full", .sys = 0, .retry = true});
  });
  EXPECT_EQ(result.error().code, Code::kNoSpace);
  EXPECT_EQ(server.requests().size(), 1u);
}

}  // namespace
}  // namespace hydrant::source
