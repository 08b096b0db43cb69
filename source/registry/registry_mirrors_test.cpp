#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "base/file.h"
#include "base/temporary_directory.h"
#include "source/auth/base64.h"
#include "source/http/scripted_server.h"
#include "source/registry/registry.h"

namespace hydrant::source {
namespace {

using namespace std::chrono_literals;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using Request = ScriptedServer::Request;
using Response = ScriptedServer::Response;

const std::string kManifest =
    R"({"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{},"layers":[]})";
const std::string kBlob(100'000, 'x');

Deadline soon() { return Deadline::after(20s); }

bool is_of(const Request& r, const std::string& path) { return r.target.substr(0, r.target.find('?')) == path; }

Response serve_registry(const Request& r) {
  if (is_of(r, "/v2/app/manifests/1"))
    return {.headers = {"Content-Type: application/vnd.oci.image.manifest.v1+json"}, .body = kManifest};
  if (is_of(r, "/v2/app/blobs/" + sha256(as_bytes(kBlob)).text())) return ScriptedServer::serve(r, kBlob);
  return {.status = 404, .body = R"({"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]})"};
}

// A registry and a mirror of it, which hosts.toml names.
class RegistryMirrorsTest : public ::testing::Test {
 protected:
  void describe(const std::string& toml) {
    const auto folder = directory_.path() + "/" + registry_.host();
    std::filesystem::create_directories(folder);
    ASSERT_TRUE(write_file_atomic(folder + "/hosts.toml", as_bytes(toml)));
  }
  std::string mirror_table() const { return "[host.'" + mirror_.url("") + "']\n"; }
  Result<Buffer> read_blob(ByteRange range) {
    auto blob = store_.blob(sha256(as_bytes(kBlob)), kBlob.size(), soon());
    if (!blob) return tl::unexpected(blob.error());
    return read_all(**blob, {.range = range, .deadline = soon(), .stop = {}});
  }
  RegistryStore make_store(const std::string& config = "") {
    auto client =
        std::make_shared<HttpClient>(HttpOptions{.attempts = 2, .first_backoff = 1ms, .longest_backoff = 2ms});
    return RegistryStore(client, proto::ImageName::parse(registry_.host() + "/app:1").value(),
                         {.plain_http = {},
                          .credentials = DockerConfig::parse(config).value(),
                          .hosts = std::make_shared<HostDirectory>(std::vector{directory_.path()})});
  }

  TemporaryDirectory directory_;
  ScriptedServer registry_{serve_registry};
  std::function<Response(const Request&)> mirror_answer_ = serve_registry;
  ScriptedServer mirror_{[this](const Request& r) { return mirror_answer_(r); }};
  RegistryStore store_ = make_store();
};

TEST_F(RegistryMirrorsTest, TheMirrorIsAskedFirstAndToldWhoseContentIsMeant) {
  describe(mirror_table() + "[host.'" + mirror_.url("") + "'.header]\nX-Team = 'storage'");
  EXPECT_EQ(store_.manifest("1", soon()).value().body, kManifest);
  EXPECT_EQ(as_text(read_blob({5, 15}).value()), kBlob.substr(5, 10));
  EXPECT_THAT(registry_.requests(), IsEmpty());
  ASSERT_EQ(mirror_.requests().size(), 2u);
  for (const auto& request : mirror_.requests()) {
    EXPECT_THAT(request.target, HasSubstr("?ns=" + registry_.host()));
    EXPECT_EQ(request.header("x-team"), "storage");
  }
}

TEST_F(RegistryMirrorsTest, AMirrorThatMayNotResolveIsAskedForBlobsAlone) {
  describe(mirror_table() + "capabilities = ['pull']");
  ASSERT_TRUE(store_.manifest("1", soon()));
  EXPECT_EQ(registry_.requests().size(), 1u);
  EXPECT_EQ(registry_.requests()[0].target, "/v2/app/manifests/1");
  ASSERT_TRUE(read_blob({0, 10}));
  EXPECT_EQ(mirror_.requests().size(), 1u);
}

TEST_F(RegistryMirrorsTest, WhatTheMirrorLacksOrFailsAtComesFromTheRegistry) {
  describe(mirror_table());
  for (int status : {404, 500, 401, 429}) {
    mirror_answer_ = [&](const Request&) -> Response { return {.status = status}; };
    auto store = make_store();
    EXPECT_TRUE(store.manifest("1", soon())) << status;
    auto blob = store.blob(sha256(as_bytes(kBlob)), kBlob.size(), soon()).value();
    EXPECT_TRUE(read_all(*blob, {.range = {0, 10}, .deadline = soon(), .stop = {}})) << status;
  }
}

TEST_F(RegistryMirrorsTest, CredentialsAreThoseOfWhoIsAsked) {
  describe(mirror_table());
  const std::string good = "Basic " + base64_encode("bob:mirrors");
  mirror_answer_ = [&](const Request& r) -> Response {
    if (r.header("authorization") != good) return {.status = 401, .headers = {"WWW-Authenticate: Basic realm=\"r\""}};
    return serve_registry(r);
  };
  auto store = make_store(R"({"auths":{")" + mirror_.host() + R"(":{"username":"bob","password":"mirrors"},")" +
                          registry_.host() + R"(":{"username":"ann","password":"registry"}}})");
  EXPECT_TRUE(store.manifest("1", soon()));
  EXPECT_THAT(registry_.requests(), IsEmpty());
}

TEST_F(RegistryMirrorsTest, WhenNobodyHasItBothAreTold) {
  describe(mirror_table());
  mirror_answer_ = [](const Request&) -> Response { return {.status = 500}; };
  auto error = store_.manifest("2", soon()).error();
  EXPECT_EQ(error.code, Code::kNotFound);
  EXPECT_THAT(error.what, HasSubstr("app:2 does not exist"));
  EXPECT_THAT(error.what, HasSubstr("a mirror failed, too"));
  EXPECT_THAT(error.what, HasSubstr("status 500"));
}

TEST_F(RegistryMirrorsTest, AChangedFileCountsAtOnceAndABrokenOneIsNamed) {
  ASSERT_TRUE(store_.manifest("1", soon()));
  EXPECT_THAT(mirror_.requests(), IsEmpty());
  describe(mirror_table());
  ASSERT_TRUE(store_.manifest("1", soon()));
  EXPECT_EQ(mirror_.requests().size(), 1u);
  describe("server = [");
  auto error = store_.manifest("1", soon()).error();
  EXPECT_EQ(error.code, Code::kInvalid);
  EXPECT_THAT(error.what, HasSubstr("hosts.toml: line 1"));
}

TEST_F(RegistryMirrorsTest, TheRegistryItselfMayStandElsewhere) {
  describe("server = '" + mirror_.url("") + "'");
  EXPECT_TRUE(store_.manifest("1", soon()));
  EXPECT_THAT(registry_.requests(), IsEmpty());
  describe("server = '" + mirror_.url("") + "'\ncapabilities = ['push']");
  auto error = store_.manifest("1", soon()).error();
  EXPECT_EQ(error.code, Code::kUnsupported);
  EXPECT_THAT(error.what, HasSubstr("leaves nobody to ask"));
}

TEST_F(RegistryMirrorsTest, APlaceMayHaveAProxyOfItsOwn) {
  // What a proxy is asked has the whole URL in its first line.
  mirror_answer_ = [](const Request& r) -> Response {
    auto at_path = r;
    at_path.target = r.target.substr(r.target.find("/v2/"));
    return r.target.starts_with("http://") ? serve_registry(at_path) : Response{.status = 400};
  };
  describe("[host.'" + registry_.url("") + "']\nproxy = '" + mirror_.url("") + "'");
  EXPECT_TRUE(store_.manifest("1", soon()));
  EXPECT_THAT(registry_.requests(), IsEmpty());
}

}  // namespace
}  // namespace hydrant::source
