#include "source/auth/docker_config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/stat.h>

#include <filesystem>

#include "base/file.h"
#include "source/auth/base64.h"

namespace hydrant::source {
namespace {

using namespace std::chrono_literals;
using ::testing::HasSubstr;
using ::testing::Not;

Deadline soon() { return Deadline::after(10s); }

Credentials find(const std::string& json, const std::string& registry) {
  auto config = DockerConfig::parse(json);
  return config ? config->find(registry, "app", soon()).value_or(Credentials{"error", {}, {}})
                : Credentials{"error", {}, {}};
}

TEST(Base64, GoesBothWaysAndRefusesGarbage) {
  for (std::string text : {"", "a", "ab", "abc", "abcd"}) EXPECT_EQ(base64_decode(base64_encode(text)), text);
  EXPECT_EQ(base64_encode("ann:pw"), "YW5uOnB3");
  for (const char* text : {"a", "ab!=", "====", " YW5uOnB3  "})
    EXPECT_NE(base64_decode(text).value_or(""), "ann:pw") << text;
}

TEST(DockerConfig, FindsCredentialsUnderEachFormOfAKey) {
  const std::string json = R"({"auths":{
    "https://index.docker.io/v1/":{"auth":"YW5uOnB3"},
    "https://r.example:5000/v2/":{"username":"bob","password":"x"},
    "plain.example":{"identitytoken":"tok"},
    "podman.example/team":{"username":"no","password":"no"},
    "empty.example":{}}})";
  EXPECT_EQ(find(json, "docker.io").username, "ann");
  EXPECT_EQ(find(json, "docker.io").password, "pw");
  EXPECT_EQ(find(json, "r.example:5000").username, "bob");
  EXPECT_EQ(find(json, "plain.example").identity_token, "tok");
  for (const char* registry : {"r.example", "podman.example", "empty.example", "other.example"})
    EXPECT_TRUE(find(json, registry).empty()) << registry;
  EXPECT_TRUE(find("", "docker.io").empty());
}

TEST(DockerConfig, BrokenTextIsInvalidAndNotQuoted) {
  for (const char* json :
       {"{", "[]", "5", R"({"auths":{"h":{"auth":"secret!!"}}})", R"({"auths":{"h":{"auth":"YWJj"}}})"}) {
    auto config = DockerConfig::parse(json);
    ASSERT_FALSE(config) << json;
    EXPECT_EQ(config.error().code, Code::kInvalid);
    EXPECT_THAT(config.error().what, Not(HasSubstr("secret")));
  }
  EXPECT_TRUE(DockerConfig::parse(R"({"auths":5,"credHelpers":[],"credsStore":1,"x":{}})"));
}

// A directory with helpers, in front of PATH.
class CredentialHelper : public ::testing::Test {
 protected:
  void SetUp() override {
    char name[] = "/tmp/hydrant-helper-XXXXXX";
    directory_ = ::mkdtemp(name);
    old_path_ = ::getenv("PATH");
    ::setenv("PATH", (directory_ + ":" + old_path_).c_str(), 1);
  }
  void TearDown() override {
    ::setenv("PATH", old_path_.c_str(), 1);
    std::filesystem::remove_all(directory_);
  }
  void install(const std::string& name, const std::string& script) {
    auto path = directory_ + "/docker-credential-" + name;
    ASSERT_TRUE(write_file_atomic(path, as_bytes("#!/bin/sh\n" + script), 0700));
  }
  Result<Credentials> ask(const std::string& json, const std::string& registry, Deadline deadline = soon()) {
    return DockerConfig::parse(json).value().find(registry, "app", deadline);
  }
  std::string directory_, old_path_;
};

TEST(DockerConfig, PartsOfARegistryHaveTheirOwnAsPodmanHasThem) {
  const auto config = DockerConfig::parse(R"({"auths":{"r.example/team":{"username":"t","password":"1"},
      "r.example/team/app":{"username":"a","password":"2"},"r.example":{"username":"r","password":"3"}}})")
                          .value();
  auto user = [&](const std::string& repository) {
    return config.find("r.example", repository, soon()).value().username;
  };
  EXPECT_EQ(user("team/app"), "a");
  EXPECT_EQ(user("team/app/sub"), "a");
  EXPECT_EQ(user("team/application"), "t");
  EXPECT_EQ(user("teams"), "r");
  EXPECT_TRUE(config.find("other.example", "team/app", soon()).value().empty());
}

TEST_F(CredentialHelper, IsAskedWithTheServersKey) {
  install("echo", R"(read server; echo "{\"Username\":\"$server\",\"Secret\":\"$1\"}")");
  EXPECT_EQ(ask(R"({"credsStore":"echo"})", "docker.io")->username, "https://index.docker.io/v1/");
  auto own = ask(R"({"credHelpers":{"r.example":"echo"}})", "r.example").value();
  EXPECT_EQ(own.username, "r.example");
  EXPECT_EQ(own.password, "get");
  EXPECT_TRUE(ask(R"({"credHelpers":{"r.example":"echo"}})", "other.example")->empty());
}

TEST_F(CredentialHelper, MayGiveAnIdentityTokenOrKnowNothing) {
  install("token", R"(echo '{"Username":"<token>","Secret":"t"}')");
  EXPECT_EQ(ask(R"({"credsStore":"token"})", "r.example")->identity_token, "t");
  install("none", "echo credentials not found in native keychain; exit 1");
  EXPECT_TRUE(ask(R"({"credsStore":"none"})", "r.example")->empty());
  EXPECT_EQ(ask(R"({"credsStore":"none","auths":{"r.example":{"auth":"YW5uOnB3"}}})", "r.example")->username, "ann");
}

TEST_F(CredentialHelper, ThatFailsIsNamed) {
  install("broken", "echo no keyring; exit 1");
  auto broken = ask(R"({"credsStore":"broken"})", "r.example").error();
  EXPECT_EQ(broken.code, Code::kIo);
  EXPECT_THAT(broken.what, HasSubstr("docker-credential-broken failed: no keyring"));
  install("garbage", "echo secret-garbage");
  EXPECT_THAT(ask(R"({"credsStore":"garbage"})", "r.example").error().what, Not(HasSubstr("secret-garbage")));
  EXPECT_EQ(ask(R"({"credsStore":"absent-helper"})", "r.example").error().code, Code::kNotFound);
  EXPECT_EQ(ask(R"({"credsStore":"../../bin/sh"})", "r.example").error().code, Code::kInvalid);
}

TEST_F(CredentialHelper, ThatHangsOrFloodsIsEnded) {
  install("hang", "exec tail -f /dev/null");
  EXPECT_EQ(ask(R"({"credsStore":"hang"})", "r.example", Deadline::after(100ms)).error().code, Code::kTooSlow);
  install("detach", "exec >/dev/null; exec tail -f /dev/null");
  EXPECT_EQ(ask(R"({"credsStore":"detach"})", "r.example", Deadline::after(500ms)).error().code, Code::kTooSlow);
  install("flood", "exec cat /dev/zero");
  EXPECT_EQ(ask(R"({"credsStore":"flood"})", "r.example").error().code, Code::kCorrupt);
}

}  // namespace
}  // namespace hydrant::source
