#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>

#include "base/file.h"
#include "base/guarded.h"
#include "base/temporary_directory.h"
#include "proto/index_artifact.h"
#include "source/auth/base64.h"
#include "source/fake.h"
#include "source/file/file_blob.h"
#include "source/http/scripted_server.h"
#include "source/registry/registry.h"

namespace hydrant::source {
namespace {

using namespace std::chrono_literals;
using ::testing::HasSubstr;
using Request = ScriptedServer::Request;
using Response = ScriptedServer::Response;

constexpr char kArtifact[] = "application/vnd.hydrant.index.v1+json";

Deadline soon() { return Deadline::after(20s); }
Digest digest_of(const std::string& text) { return sha256(as_bytes(text)); }

// A registry that keeps what is pushed, in memory; with the referrers API or as those without it.
struct PushRegistry {
  struct State {
    std::map<std::string, std::string> blobs, manifests;
  };
  Guarded<State> state;
  bool api = false;
  std::function<void(State&)> after_tag = [](State&) {};  // another client, which writes right after us
  std::string wanted_authorization;
  ScriptedServer server{[this](const Request& request) { return answer(request); }};

  Response answer(const Request& request) {
    if (!wanted_authorization.empty() && request.header("authorization") != wanted_authorization)
      return {.status = 401, .headers = {"WWW-Authenticate: Basic realm=\"r\""}};
    auto held = state.lock();
    const std::string& target = request.target;
    if (request.method == "POST" && target == "/v2/app/blobs/uploads/")
      return {.status = 202, .headers = {"Location: /v2/app/blobs/uploads/7?_state=x"}};
    if (request.method == "PUT" && target.starts_with("/v2/app/blobs/uploads/7?_state=x&digest=")) {
      const auto digest = target.substr(target.rfind('=') + 1);
      if (digest_of(request.body).text() != digest) return {.status = 400};
      held->blobs[digest] = request.body;
      return {.status = 201};
    }
    const std::string kManifests = "/v2/app/manifests/";
    if (target.starts_with(kManifests) && request.method == "PUT") {
      const auto name = target.substr(kManifests.size());
      held->manifests[name] = request.body;
      if (!name.starts_with("sha256:")) after_tag(*held);
      if (api) return {.status = 201, .headers = {"OCI-Subject: " + digest_of("image").text()}};
      return {.status = 201};
    }
    if (target.starts_with(kManifests)) {
      auto found = held->manifests.find(target.substr(kManifests.size()));
      if (found == held->manifests.end()) return {.status = 404, .body = R"({"errors":[{"code":"MANIFEST_UNKNOWN"}]})"};
      return {.headers = {"Content-Type: " + std::string(proto::media::kOciIndex)}, .body = found->second};
    }
    return {.status = 404, .body = "404 page not found"};
  }

  RegistryStore store(const std::string& config = "") {
    return RegistryStore(
        std::make_shared<HttpClient>(
            HttpOptions{.attempts = 2, .first_backoff = 1ms, .longest_backoff = 2ms, .ca_file = {}, .user_agent = {}}),
        proto::ImageName::parse(server.host() + "/app:1").value(),
        {.plain_http = {}, .credentials = DockerConfig::parse(config).value()});
  }
};

proto::Descriptor artifact(const std::string& body) {
  proto::Descriptor self;
  self.media_type = proto::media::kOciManifest;
  self.digest = digest_of(body);
  self.size = body.size();
  self.artifact_type = kArtifact;
  return self;
}

TEST(RegistryPush, ABlobArrivesUnderItsDigest) {
  PushRegistry registry;
  auto store = registry.store();
  BytesBlob blob("index", "an index");
  auto put = store.put_blob(digest_of("index"), blob, soon());
  ASSERT_TRUE(put) << put.error().what;
  EXPECT_EQ(registry.state.lock()->blobs[digest_of("index").text()], "index");
}

TEST(RegistryPush, AFileIsReadInPiecesWhileItIsSent) {
  PushRegistry registry;
  auto store = registry.store();
  std::string text;
  while (text.size() < (3 << 20) + 17) text += std::to_string(text.size()) + " ";
  FakeBlob blob(to_buffer(as_bytes(text)));
  auto put = store.put_blob(digest_of(text), blob, soon());
  ASSERT_TRUE(put) << put.error().what;
  EXPECT_EQ(registry.state.lock()->blobs[digest_of(text).text()], text);
  uint64_t end = 0;
  for (const ByteRange& read : blob.reads()) {
    EXPECT_EQ(read.begin, end);
    EXPECT_LE(read.size(), 256U << 10);
    end = read.end;
  }
  EXPECT_EQ(end, text.size());
}

TEST(RegistryPush, AnUploadThatBreaksOffIsSentAgainFromItsStart) {
  PushRegistry registry;
  std::atomic<int> uploads{0};  // each connection is served by a thread of its own
  ScriptedServer flaky([&](const Request& request) -> Response {
    if (request.method == "PUT" && ++uploads == 1) return {.no_answer = true};
    return registry.answer(request);
  });
  RegistryStore store(
      std::make_shared<HttpClient>(HttpOptions{.stall_timeout = 200ms, .attempts = 2, .first_backoff = 1ms}),
      proto::ImageName::parse(flaky.host() + "/app:1").value());
  const std::string text(1 << 20, 'x');
  BytesBlob blob(text, "an index");
  auto put = store.put_blob(digest_of(text), blob, soon());
  ASSERT_TRUE(put) << put.error().what;
  EXPECT_EQ(uploads, 2);
  EXPECT_EQ(registry.state.lock()->blobs[digest_of(text).text()], text);
}

TEST(RegistryPush, AFileThatChangesWhileItIsSentIsNoBlob) {
  PushRegistry registry;
  auto store = registry.store();
  TemporaryDirectory directory;
  const std::string path = directory.path() + "/index";
  ASSERT_TRUE(write_file_atomic(path, as_bytes("index")));
  auto blob = FileBlob::open(path, /*proven=*/true);
  ASSERT_TRUE(blob);
  std::filesystem::resize_file(path, 3);
  EXPECT_EQ(store.put_blob(digest_of("index"), **blob, soon()).error().code, Code::kGone);
  EXPECT_TRUE(registry.state.lock()->blobs.empty());
}

TEST(RegistryPush, WithoutTheApiTheFallbackTagListsItOnceAndKeepsOthers) {
  PushRegistry registry;
  auto store = registry.store();
  const auto tag = proto::referrers_tag(digest_of("image"));
  registry.state.lock()->manifests[tag] = R"({"schemaVersion":2,"manifests":[{"mediaType":"m","digest":")" +
                                          digest_of("sbom").text() +
                                          R"(","size":3,"artifactType":"sbom","odd":true}]})";
  for (int i = 0; i < 2; ++i) {
    auto put = store.put_referrer(digest_of("image"), artifact("{}"), "{}", soon());
    ASSERT_TRUE(put) << put.error().what;
  }
  const auto list = registry.state.lock()->manifests[tag];
  EXPECT_THAT(list, HasSubstr("\"odd\":true"));
  EXPECT_THAT(list, HasSubstr("\"sbom\""));
  auto found = store.referrers(digest_of("image"), kArtifact, soon());
  ASSERT_TRUE(found) << found.error().what;
  ASSERT_EQ(found->size(), 1U);
  EXPECT_EQ(found->at(0).digest, digest_of("{}"));
  EXPECT_TRUE(store.referrers(digest_of("another image"), kArtifact, soon()).value().empty());
}

TEST(RegistryPush, AnEntryThatAnotherClientOverwroteIsPutBack) {
  PushRegistry registry;
  auto store = registry.store();
  const auto tag = proto::referrers_tag(digest_of("image"));
  const std::string theirs = R"({"schemaVersion":2,"manifests":[{"mediaType":"m","digest":")" +
                             digest_of("theirs").text() + R"(","size":3}]})";
  bool first = true;
  registry.after_tag = [&](PushRegistry::State& state) {
    if (std::exchange(first, false)) state.manifests[tag] = theirs;
  };
  ASSERT_TRUE(store.put_referrer(digest_of("image"), artifact("{}"), "{}", soon()));
  EXPECT_THAT(registry.state.lock()->manifests[tag], HasSubstr(digest_of("theirs").text()));
  EXPECT_THAT(registry.state.lock()->manifests[tag], HasSubstr(digest_of("{}").text()));
  registry.after_tag = [&](PushRegistry::State& state) { state.manifests[tag] = theirs; };
  EXPECT_EQ(store.put_referrer(digest_of("image"), artifact("[]"), "[]", soon()).error().code, Code::kBusy);
}

TEST(RegistryPush, ARegistryThatNamesTheSubjectKeepsTheListItself) {
  PushRegistry registry;
  registry.api = true;
  auto store = registry.store();
  ASSERT_TRUE(store.put_referrer(digest_of("image"), artifact("{}"), "{}", soon()));
  EXPECT_EQ(registry.state.lock()->manifests.size(), 1U) << "no fallback tag";
}

TEST(RegistryPush, ReferrersComeByPagesAndAreFilteredHere) {
  auto page = [](const std::string& digest, const std::string& type) {
    return R"({"schemaVersion":2,"manifests":[{"mediaType":"m","digest":")" + digest +
           R"(","size":3,"artifactType":")" + type + "\"}]}";
  };
  ScriptedServer server([&](const Request& request) -> Response {
    const std::string type = "Content-Type: " + std::string(proto::media::kOciIndex);
    if (request.target.ends_with("&page=2"))
      return {.headers = {type}, .body = page(digest_of("two").text(), kArtifact)};
    if (request.target.starts_with("/v2/app/referrers/"))
      return {.headers = {type, "Link: <" + request.target + "&page=2>; rel=\"next\""},
              .body = page(digest_of("one").text(), "other")};
    return {.status = 404};
  });
  RegistryStore store(std::make_shared<HttpClient>(), proto::ImageName::parse(server.host() + "/app:1").value());
  auto found = store.referrers(digest_of("image"), kArtifact, soon());
  ASSERT_TRUE(found) << found.error().what;
  ASSERT_EQ(found->size(), 1U);
  EXPECT_EQ(found->at(0).digest, digest_of("two"));
}

TEST(RegistryPush, CredentialsAreSentAndMissingOnesAreNamed) {
  PushRegistry registry;
  registry.wanted_authorization = "Basic " + base64_encode("ann:right");
  BytesBlob blob("index", "an index");
  auto anonymous = registry.store().put_blob(digest_of("index"), blob, soon()).error();
  EXPECT_EQ(anonymous.code, Code::kUnauthorized);
  EXPECT_THAT(anonymous.what, HasSubstr("docker login"));
  auto store =
      registry.store(R"({"auths":{")" + registry.server.host() + R"(":{"username":"ann","password":"right"}}})");
  EXPECT_TRUE(store.put_blob(digest_of("index"), blob, soon()));
  ScriptedServer reader([](const Request&) -> Response { return {.status = 403}; });
  RegistryStore closed(std::make_shared<HttpClient>(), proto::ImageName::parse(reader.host() + "/app:1").value());
  auto denied = closed.put_manifest("x", "m", "{}", soon()).error();
  EXPECT_EQ(denied.code, Code::kDenied);
  EXPECT_THAT(denied.what, HasSubstr("not push"));
}

}  // namespace
}  // namespace hydrant::source
