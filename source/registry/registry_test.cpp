#include "source/registry/registry.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <stdlib.h>

#include <atomic>
#include <filesystem>

#include "base/file.h"
#include "base/guarded.h"
#include "source/auth/base64.h"
#include "source/http/scripted_server.h"

namespace hydrant::source {
namespace {

using namespace std::chrono_literals;
using ::testing::HasSubstr;
using ::testing::Not;
using Request = ScriptedServer::Request;
using Response = ScriptedServer::Response;

const std::string kManifest =
    R"({"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{},"layers":[]})";
const std::string kBlob(100'000, 'x');

Deadline soon() { return Deadline::after(20s); }

std::shared_ptr<HttpClient> fast_client() {
  return std::make_shared<HttpClient>(
      HttpOptions{.attempts = 2, .first_backoff = 1ms, .longest_backoff = 2ms, .ca_file = {}, .user_agent = {}});
}

RegistryStore store_at(const ScriptedServer& server, const std::string& config = "",
                       const Clock& clock = Clock::system()) {
  return RegistryStore(fast_client(), proto::ImageName::parse(server.host() + "/app:1").value(),
                       {.plain_http = {}, .credentials = DockerConfig::parse(config).value(), .clock = &clock});
}

std::string config_for(const ScriptedServer& server, const std::string& fields) {
  return R"({"auths":{")" + server.host() + R"(":{)" + fields + "}}}";
}

// A small v2 registry with one image, behind whatever `admit` asks for.
Response serve_registry(const Request& r) {
  if (r.target == "/v2/app/manifests/1" || r.target == "/v2/app/manifests/" + sha256(as_bytes(kManifest)).text())
    return {.headers = {"Content-Type: application/vnd.oci.image.manifest.v1+json; charset=utf-8"}, .body = kManifest};
  if (r.target == "/v2/app/blobs/" + sha256(as_bytes(kBlob)).text()) return ScriptedServer::serve(r, kBlob);
  return {.status = 404, .body = R"({"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]})"};
}

TEST(RegistryStore, GivesManifestsAndBlobs) {
  ScriptedServer server(serve_registry);
  auto store = store_at(server);
  auto manifest = store.manifest("1", soon());
  ASSERT_TRUE(manifest) << manifest.error().what;
  EXPECT_EQ(manifest->body, kManifest);
  EXPECT_EQ(manifest->media_type, "application/vnd.oci.image.manifest.v1+json");
  EXPECT_EQ(store.manifest(manifest->digest.text(), soon()).value().body, kManifest);
  EXPECT_THAT(server.requests()[0].header("accept"), HasSubstr("manifest.list.v2+json"));
  auto blob = store.blob(sha256(as_bytes(kBlob)), kBlob.size(), soon()).value();
  EXPECT_EQ(as_text(read_all(*blob, {.range = {10, 20}, .deadline = soon(), .stop = {}}).value()),
            kBlob.substr(10, 10));
  auto wrong = store.blob(sha256(as_bytes(kBlob)), kBlob.size() - 1, soon()).value();
  EXPECT_EQ(read_all(*wrong, {.range = {10, 20}, .deadline = soon(), .stop = {}}).error().code, Code::kCorrupt);
}

TEST(RegistryStore, AManifestThatIsNotItsDigestIsCorrupt) {
  ScriptedServer server([](const Request&) -> Response {
    return {.headers = {"Docker-Content-Digest: sha256:" + std::string(64, 'a')}, .body = kManifest};
  });
  auto store = store_at(server);
  EXPECT_EQ(store.manifest("sha256:" + std::string(64, 'b'), soon()).error().code, Code::kCorrupt);
  EXPECT_EQ(store.manifest("1", soon()).error().code, Code::kCorrupt);
}

TEST(RegistryStore, UnknownImageUnknownServerAndNoServerAreToldApart) {
  ScriptedServer server(serve_registry);
  auto unknown = store_at(server).manifest("2", soon()).error();
  EXPECT_EQ(unknown.code, Code::kNotFound);
  EXPECT_THAT(unknown.what, HasSubstr(server.host() + "/app:2 does not exist"));
  EXPECT_THAT(unknown.what, HasSubstr("MANIFEST_UNKNOWN"));

  ScriptedServer web([](const Request&) -> Response {
    return {.headers = {"Content-Type: text/html"}, .body = "<html>hello</html>"};
  });
  EXPECT_EQ(store_at(web).manifest("1", soon()).error().code, Code::kUnsupported);
  ScriptedServer other([](const Request&) -> Response { return {.status = 404, .body = "no"}; });
  EXPECT_THAT(store_at(other).manifest("1", soon()).error().what, HasSubstr("not as an image registry"));
  ScriptedServer endless([](const Request&) -> Response { return {.body = std::string(5 << 20, ' ')}; });
  EXPECT_EQ(store_at(endless).manifest("1", soon()).error().code, Code::kCorrupt);

  std::optional<ScriptedServer> gone(std::in_place, serve_registry);
  auto store = store_at(*gone);
  gone.reset();
  auto unreachable = store.manifest("1", soon()).error();
  EXPECT_EQ(unreachable.code, Code::kUnreachable);
  EXPECT_THAT(unreachable.what, HasSubstr("127.0.0.1"));
}

TEST(RegistryStore, BasicCredentialsAreSentWhenAskedForAndWrongOnesAreNotRepeated) {
  const std::string good = "Basic " + base64_encode("ann:right");
  ScriptedServer server([&](const Request& r) -> Response {
    if (r.header("authorization") != good) return {.status = 401, .headers = {"WWW-Authenticate: Basic realm=\"r\""}};
    return serve_registry(r);
  });
  auto store = store_at(server, config_for(server, R"("auth":")" + base64_encode("ann:right") + '"'));
  EXPECT_TRUE(store.manifest("1", soon()));
  EXPECT_TRUE(store.manifest("1", soon()));
  EXPECT_EQ(server.requests().size(), 3u);

  auto wrong =
      store_at(server, config_for(server, R"("username":"ann","password":"wrong")")).manifest("1", soon()).error();
  EXPECT_EQ(wrong.code, Code::kUnauthorized);
  EXPECT_THAT(wrong.what, HasSubstr("refuses the credentials of ann"));
  EXPECT_THAT(wrong.what, Not(HasSubstr("wrong")));
  EXPECT_EQ(server.requests().size(), 5u);

  auto none = store_at(server).manifest("1", soon()).error();
  EXPECT_EQ(none.code, Code::kUnauthorized);
  EXPECT_THAT(none.what, HasSubstr("needs credentials; run docker login " + server.host()));
}

// A registry with a token service beside it, which gives out token-1, token-2, … of `life` seconds.
struct TokenRegistry {
  explicit TokenRegistry(std::string life_field = R"(,"expires_in":40)")
      : service([this, life_field](const Request& r) -> Response {
          ++asked;
          if (refuse) return {.status = 401};
          if (broken) return {.status = 400};
          if (r.method == "POST" && r.body.find("refresh_token=r%2Ft") == std::string::npos) return {.status = 401};
          if (r.target.find("service=reg.example") == std::string::npos && r.method == "GET") return {.status = 400};
          return {.body = R"({"token":"token-)" + std::to_string(++issued) + '"' + life_field + "}"};
        }),
        registry([this](const Request& r) -> Response {
          if (r.header("authorization") != "Bearer token-" + std::to_string(issued.load()) || issued < oldest)
            return {.status = 401,
                    .headers = {"WWW-Authenticate: Bearer realm=\"" + service.url("/token") +
                                "\",service=\"reg.example\",scope=\"repository:app:pull\""}};
          return serve_registry(r);
        }) {}
  std::atomic<int> asked = 0, issued = 0, oldest = 1;
  std::atomic<bool> refuse = false, broken = false;
  ScriptedServer service, registry;
};

TEST(RegistryAuth, ATokenIsFetchedOnceAndRenewedBeforeItExpires) {
  TokenRegistry server;
  ManualClock clock;
  auto store = store_at(server.registry, config_for(server.registry, R"("username":"ann","password":"pw")"), clock);
  for (int i = 0; i < 3; ++i) ASSERT_TRUE(store.manifest("1", soon()));
  EXPECT_EQ(server.issued, 1);
  auto ask = server.service.requests()[0];
  EXPECT_THAT(ask.target, HasSubstr("scope=repository%3Aapp%3Apull"));
  EXPECT_EQ(ask.header("authorization"), "Basic " + base64_encode("ann:pw"));
  clock.advance(29s);
  ASSERT_TRUE(store.manifest("1", soon()));
  EXPECT_EQ(server.issued, 1);
  clock.advance(2s);  // 31 s of 40: its last quarter
  auto before = server.registry.requests().size();
  ASSERT_TRUE(store.manifest("1", soon()));
  EXPECT_EQ(server.issued, 2);
  EXPECT_EQ(server.registry.requests().size(), before + 1);  // no 401 in between
}

TEST(RegistryAuth, ATokenTakenBackIsReplacedOnce) {
  TokenRegistry server;
  auto store = store_at(server.registry);
  ASSERT_TRUE(store.manifest("1", soon()));
  server.oldest = 2;
  ASSERT_TRUE(store.manifest("1", soon()));
  EXPECT_EQ(server.issued, 2);
  server.oldest = 100;  // whatever it gives out is refused
  auto before = server.asked.load();
  EXPECT_EQ(store.manifest("1", soon()).error().code, Code::kUnauthorized);
  EXPECT_EQ(server.asked, before + 1);
}

TEST(RegistryAuth, ARenewalThatFailsEarlyHarmsNobodyUntilTheTokenExpires) {
  TokenRegistry server;
  ManualClock clock;
  auto store = store_at(server.registry, "", clock);
  ASSERT_TRUE(store.manifest("1", soon()));
  server.broken = true;
  clock.advance(31s);
  EXPECT_TRUE(store.manifest("1", soon()));
  EXPECT_TRUE(store.manifest("1", soon()));
  EXPECT_EQ(server.asked, 2);  // not once per request
  clock.advance(10s);
  EXPECT_FALSE(store.manifest("1", soon()));
  server.broken = false;
  EXPECT_TRUE(store.manifest("1", soon()));
}

TEST(RegistryAuth, AnIdentityTokenIsExchangedByPost) {
  TokenRegistry server(R"(,"expires_in":1.5)");
  auto store = store_at(server.registry, config_for(server.registry, R"("identitytoken":"r/t")"));
  EXPECT_TRUE(store.manifest("1", soon()));
  EXPECT_EQ(server.service.requests()[0].method, "POST");
  EXPECT_THAT(server.service.requests()[0].body, HasSubstr("grant_type=refresh_token"));
}

TEST(RegistryAuth, ATokenServiceThatRefusesIsAMatterOfCredentials) {
  TokenRegistry server;
  server.refuse = true;
  auto none = store_at(server.registry).manifest("1", soon()).error();
  EXPECT_EQ(none.code, Code::kUnauthorized);
  EXPECT_THAT(none.what, HasSubstr("docker login"));
  auto wrong = store_at(server.registry, config_for(server.registry, R"("username":"ann","password":"pw")"));
  EXPECT_THAT(wrong.manifest("1", soon()).error().what, HasSubstr("refuses the credentials of ann"));
}

TEST(RegistryAuth, ATokenThatIsForbiddenIsReplacedOnceUnlessItIsNew) {
  TokenRegistry server;
  std::atomic<int> forbidden_up_to = 0;
  std::atomic<int> asked = 0;
  ScriptedServer front([&](const Request& r) -> Response {
    ++asked;
    if (r.header("authorization").empty())
      return {.status = 401,
              .headers = {"WWW-Authenticate: Bearer realm=\"" + server.service.url("/token") +
                          "\",service=\"reg.example\""}};
    if (std::stoi(r.header("authorization").substr(13)) <= forbidden_up_to) return {.status = 403};
    return serve_registry(r);
  });
  ManualClock clock;
  auto store = store_at(front, "", clock);
  ASSERT_TRUE(store.manifest("1", soon()));
  forbidden_up_to = 1;
  clock.advance(5s);
  EXPECT_TRUE(store.manifest("1", soon()));
  EXPECT_EQ(server.issued, 2);
  forbidden_up_to = 1000;  // it is not about the token
  clock.advance(5s);
  auto before = asked.load();
  EXPECT_EQ(store.manifest("1", soon()).error().code, Code::kDenied);
  EXPECT_EQ(asked - before, 2);
  before = asked.load();
  EXPECT_EQ(store.manifest("1", soon()).error().code, Code::kDenied);
  EXPECT_EQ(asked - before, 1);
  EXPECT_EQ(server.issued, 3);
}

TEST(RegistryAuth, ATokenServiceThatSaidNoIsNotAskedByEachReader) {
  TokenRegistry server;
  ManualClock clock;
  auto store = store_at(server.registry, "", clock);
  server.refuse = true;
  for (int i = 0; i < 3; ++i) EXPECT_EQ(store.manifest("1", soon()).error().code, Code::kUnauthorized);
  EXPECT_EQ(server.asked, 1);
  server.refuse = false;
  clock.advance(2s);
  EXPECT_TRUE(store.manifest("1", soon()));
}

// A credential helper in front of PATH that gives what stands in a file, which a test rewrites.
class ExpiringHelper : public ::testing::Test {
 protected:
  void SetUp() override {
    char name[] = "/tmp/hydrant-helper-XXXXXX";
    directory_ = ::mkdtemp(name);
    old_path_ = ::getenv("PATH");
    ::setenv("PATH", (directory_ + ":" + old_path_).c_str(), 1);
    ASSERT_TRUE(write_file_atomic(directory_ + "/docker-credential-turns",
                                  as_bytes("#!/bin/sh\ncat " + directory_ + "/answer"), 0700));
    give("first");
  }
  void TearDown() override {
    ::setenv("PATH", old_path_.c_str(), 1);
    std::filesystem::remove_all(directory_);
  }
  void give(const std::string& password) {
    ASSERT_TRUE(
        write_file_atomic(directory_ + "/answer", as_bytes(R"({"Username":"AWS","Secret":")" + password + R"("})")));
  }
  std::string directory_, old_path_;
};

TEST_F(ExpiringHelper, IsAskedAgainWhenWhatItGaveIsRefused) {
  for (int refusal : {401, 403}) {
    give("first");
    Guarded<std::string> accepted("first");
    ScriptedServer server([&](const Request& r) -> Response {
      if (r.header("authorization").empty()) return {.status = 401, .headers = {"WWW-Authenticate: Basic realm=\"r\""}};
      if (r.header("authorization") == "Basic " + base64_encode("AWS:" + *accepted.lock())) return serve_registry(r);
      return {.status = refusal, .headers = {"WWW-Authenticate: Basic realm=\"r\""}};
    });
    ManualClock clock;
    auto store = store_at(server, R"({"credsStore":"turns"})", clock);
    ASSERT_TRUE(store.manifest("1", soon()));
    *accepted.lock() = "second";
    clock.advance(12h);
    EXPECT_FALSE(store.manifest("1", soon())) << refusal;  // the helper has nothing new yet
    give("second");
    clock.advance(2s);
    auto renewed = store.manifest("1", soon());
    EXPECT_TRUE(renewed) << refusal << " " << renewed.error().what;
  }
}

TEST_F(ExpiringHelper, IsAskedAgainBeforeATokenIsRenewed) {
  TokenRegistry server;
  ManualClock clock;
  auto store = store_at(server.registry, R"({"credsStore":"turns"})", clock);
  ASSERT_TRUE(store.manifest("1", soon()));
  give("second");
  clock.advance(1h);
  ASSERT_TRUE(store.manifest("1", soon()));
  EXPECT_EQ(server.service.requests().back().header("authorization"), "Basic " + base64_encode("AWS:second"));
}

TEST(RegistryAuth, ManyReadersShareOneToken) {
  TokenRegistry server;
  auto store = store_at(server.registry);
  auto blob = store.blob(sha256(as_bytes(kBlob)), kBlob.size(), soon()).value();
  std::atomic<int> good = 0;
  {
    std::vector<std::jthread> threads;
    for (int t = 0; t < 6; ++t)
      threads.emplace_back([&] {
        for (uint64_t i = 0; i < 5; ++i)
          good += read_all(*blob, {.range = {i, i + 1000}, .deadline = soon(), .stop = {}}).has_value();
      });
  }
  EXPECT_EQ(good, 30);
  EXPECT_EQ(server.issued, 1);
}

TEST(RegistryAuth, GarbageFromATokenServiceIsAnError) {
  for (const char* body : {"", "[]", "{}", R"({"token":5})", R"({"token":"a\r\nX: y"})"}) {
    ScriptedServer service([&](const Request&) -> Response { return {.body = body}; });
    ScriptedServer registry([&](const Request&) -> Response {
      return {.status = 401, .headers = {"WWW-Authenticate: Bearer realm=\"" + service.url() + "\""}};
    });
    EXPECT_EQ(store_at(registry).manifest("1", soon()).error().code, Code::kCorrupt) << body;
  }
}

}  // namespace
}  // namespace hydrant::source
