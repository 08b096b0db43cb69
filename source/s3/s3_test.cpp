#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <stdlib.h>

#include <atomic>
#include <filesystem>

#include "base/file.h"
#include "source/http/scripted_server.h"
#include "source/s3/s3_bucket.h"

namespace hydrant::source {
namespace {

using namespace std::chrono_literals;
using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::Not;
using Request = ScriptedServer::Request;
using Response = ScriptedServer::Response;
using Variables = std::map<std::string, std::string>;

constexpr int64_t kNow = 1'369'353'600;  // 2013-05-24 00:00:00, as in Amazon's examples
const std::string kContent(1000, 'x');
const AwsKeys kExampleKeys{"AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", ""};

Deadline soon() { return Deadline::after(20s); }

Environment environment(Variables variables) {
  return [variables = std::move(variables)](const std::string& name) {
    auto found = variables.find(name);
    return found == variables.end() ? std::string() : found->second;
  };
}

Variables keys_at(const ScriptedServer& server) {
  return {{"AWS_ACCESS_KEY_ID", "AKID"}, {"AWS_SECRET_ACCESS_KEY", "secret"}, {"AWS_ENDPOINT_URL_S3", server.url("")}};
}

std::shared_ptr<HttpClient> client() {
  return std::make_shared<HttpClient>(
      HttpOptions{.attempts = 2, .first_backoff = 1ms, .longest_backoff = 2ms, .ca_file = {}, .user_agent = {}});
}

std::unique_ptr<S3Bucket> bucket(
    Variables variables, std::function<int64_t()> clock = [] { return kNow; }) {
  return S3Bucket::open(client(), "bucket", {environment(std::move(variables)), std::move(clock)}).value();
}

Response s3_error(int status, const std::string& code, const std::string& more = "") {
  return {.status = status, .body = "<Error><Code>" + code + "</Code>" + more + "</Error>"};
}

TEST(S3Signature, MatchesAmazonsExamples) {
  const std::string host = "https://examplebucket.s3.amazonaws.com";
  auto signature = [&](const std::string& tail, std::map<std::string, std::string> headers = {}) {
    return sign_v4(kExampleKeys, "us-east-1", kNow, host + tail, std::move(headers)).value;
  };
  EXPECT_EQ(signature("/test.txt", {{"range", "bytes=0-9"}}),
            "AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request, "
            "SignedHeaders=host;range;x-amz-content-sha256;x-amz-date, "
            "Signature=f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41");
  EXPECT_THAT(signature("/?lifecycle"), EndsWith("fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543"));
  EXPECT_THAT(signature("/?prefix=J&max-keys=2"),
              EndsWith("34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7"));
}

TEST(S3Signature, EscapesWhatIsNotPlain) {
  EXPECT_EQ(aws_escape("a b/c+d~\xc3\xa9?", true), "a%20b/c%2Bd~%C3%A9%3F");
  EXPECT_EQ(aws_escape("a/b=", false), "a%2Fb%3D");
}

TEST(S3Bucket, ReadsSignedAndKeepsSecretsOutOfErrors) {
  ScriptedServer server([](const Request& r) -> Response {
    if (r.target == "/bucket/none") return s3_error(403, "AccessDenied", "<Message>Access Denied</Message>");
    auto out = ScriptedServer::serve(r, kContent);
    out.headers.push_back("ETag: \"1\"");
    return out;
  });
  auto variables = keys_at(server);
  variables["AWS_SESSION_TOKEN"] = "session";
  auto b = bucket(variables);
  auto blob = b->blob("dir/a b.img", soon());
  ASSERT_TRUE(blob) << blob.error().what;
  EXPECT_EQ((*blob)->size(), kContent.size());
  EXPECT_EQ((*blob)->version().validator, "\"1\"");
  EXPECT_EQ((*blob)->describe(), "s3://bucket/dir/a b.img");
  EXPECT_TRUE(read_all(**blob, {.range = {5, 10}, .deadline = soon(), .stop = {}}));
  auto request = server.requests()[1];
  EXPECT_EQ(request.target, "/bucket/dir/a%20b.img");
  EXPECT_EQ(request.header("x-amz-date"), "20130524T000000Z");
  EXPECT_EQ(request.header("x-amz-security-token"), "session");
  EXPECT_THAT(request.header("authorization"), HasSubstr("Credential=AKID/20130524/us-east-1/s3/aws4_request"));

  auto denied = b->blob("none", soon()).error();
  EXPECT_EQ(denied.code, Code::kDenied);
  EXPECT_THAT(denied.what, HasSubstr("s3://bucket/none"));
  EXPECT_THAT(denied.what, HasSubstr("AccessDenied: Access Denied"));
  EXPECT_THAT(denied.what, Not(HasSubstr("secret")));
}

TEST(S3Bucket, WithoutKeysRequestsGoUnsigned) {
  ScriptedServer server([](const Request& r) { return ScriptedServer::serve(r, kContent); });
  ASSERT_TRUE(bucket({{"AWS_ENDPOINT_URL", server.url("/")}})->blob("key", soon()));
  EXPECT_EQ(server.requests()[0].header("authorization"), "");
  EXPECT_EQ(server.requests()[0].target, "/bucket/key");
}

TEST(S3Bucket, AnEmptyObjectHasNoBytes) {
  ScriptedServer server([](const Request& r) -> Response {
    if (!r.header("range").empty()) return s3_error(416, "InvalidRange");
    return {.headers = {"ETag: \"1\""}, .body = r.target == "/bucket/odd" ? "full" : ""};
  });
  auto blob = bucket(keys_at(server))->blob("empty", soon());
  ASSERT_TRUE(blob) << blob.error().what;
  EXPECT_EQ((*blob)->size(), 0u);
  EXPECT_EQ(bucket(keys_at(server))->blob("odd", soon()).error().code, Code::kUnsupported);
}

TEST(S3Bucket, AClockThatIsWrongIsPutRightByTheServersDate) {
  ScriptedServer server([](const Request& r) -> Response {
    auto stamp = r.header("x-amz-date");
    if (stamp < "20130524T010000Z" || stamp > "20130524T013000Z") {
      auto out = s3_error(403, "RequestTimeTooSkewed");
      out.headers = {"Date: Fri, 24 May 2013 01:15:00 GMT"};
      return out;
    }
    return ScriptedServer::serve(r, kContent);
  });
  auto b = bucket(keys_at(server));
  auto blob = b->blob("key", soon());
  ASSERT_TRUE(blob) << blob.error().what;
  EXPECT_EQ(server.requests().size(), 2u);
  EXPECT_TRUE(read_all(**blob, {.range = {5, 10}, .deadline = soon(), .stop = {}}));
  EXPECT_EQ(server.requests().size(), 3u);
}

TEST(S3Bucket, TheBucketsRegionIsLearned) {
  for (bool by_header : {false, true}) {
    ScriptedServer server([&](const Request& r) -> Response {
      if (r.header("authorization").find("/eu-west-1/s3/") == std::string::npos) {
        auto out = s3_error(by_header ? 301 : 400, by_header ? "PermanentRedirect" : "AuthorizationHeaderMalformed",
                            by_header ? "" : "<Region>eu-west-1</Region>");
        if (by_header) out.headers = {"x-amz-bucket-region: eu-west-1"};
        return out;
      }
      return ScriptedServer::serve(r, kContent);
    });
    auto blob = bucket(keys_at(server))->blob("key", soon());
    EXPECT_TRUE(blob) << by_header << blob.error().what;
  }
}

TEST(S3Bucket, EverythingMayBeWrongAtOnceAndNothingForEver) {
  ScriptedServer server([](const Request& r) -> Response {
    if (r.target == "/bucket/never") return s3_error(400, "AuthorizationHeaderMalformed", "<Region>eu-west-1</Region>");
    if (r.header("authorization").find("/eu-west-1/s3/") == std::string::npos)
      return s3_error(400, "AuthorizationHeaderMalformed", "<Region>eu-west-1</Region>");
    if (r.header("x-amz-date") < "20130524T010000Z") {
      auto out = s3_error(403, "RequestTimeTooSkewed");
      out.headers = {"Date: Fri, 24 May 2013 01:15:00 GMT"};
      return out;
    }
    return ScriptedServer::serve(r, kContent);
  });
  auto b = bucket(keys_at(server));
  EXPECT_TRUE(b->blob("key", soon()));
  EXPECT_EQ(server.requests().size(), 3u);
  EXPECT_FALSE(b->blob("never", soon()));
  EXPECT_EQ(server.requests().size(), 4u);
}

TEST(S3Bucket, ListsPageByPage) {
  ScriptedServer server([](const Request& r) -> Response {
    const bool second = r.target.find("continuation-token=t%2F1") != std::string::npos;
    return {.body =
                std::string("<ListBucketResult><IsTruncated>") + (second ? "false" : "true") +
                "</IsTruncated><Contents><Key>p/" + (second ? "b" : "a") +
                "</Key><Size>1</Size></Contents><NextContinuationToken>t/1</NextContinuationToken></ListBucketResult>"};
  });
  auto listed = bucket(keys_at(server))->list("p/", soon());
  ASSERT_TRUE(listed) << listed.error().what;
  ASSERT_EQ(listed->size(), 2u);
  EXPECT_EQ((*listed)[1].key, "p/b");
  EXPECT_EQ(server.requests()[0].target, "/bucket/?list-type=2&prefix=p%2F");

  ScriptedServer endless([](const Request&) -> Response {
    return {.body =
                "<ListBucketResult><IsTruncated>true</IsTruncated><NextContinuationToken>t</NextContinuationToken>"
                "</ListBucketResult>"};
  });
  EXPECT_EQ(bucket(keys_at(endless))->list("", soon()).error().code, Code::kCorrupt);
}

TEST(S3Bucket, UrlsNameBucketAndKey) {
  auto name = parse_s3_url("s3://my-bucket/a/b%3Fc%20d").value();
  EXPECT_EQ(name.bucket, "my-bucket");
  EXPECT_EQ(name.key, "a/b?c d");
  EXPECT_EQ(parse_s3_url("s3://my-bucket").value().key, "");
  for (const char* url : {"s3://", "s3://a", "s3:///key", "s3://a@b.example/x", "s3://my-bucket/a?b",
                          "s3://my-bucket/%zz", "http://bucket/key"})
    EXPECT_EQ(parse_s3_url(url).error().code, Code::kInvalid) << url;
}

class AwsFiles : public ::testing::Test {
 protected:
  void SetUp() override {
    char name[] = "/tmp/hydrant-aws-XXXXXX";
    home_ = ::mkdtemp(name);
    ASSERT_TRUE(make_directories(home_ + "/.aws"));
  }
  void TearDown() override { std::filesystem::remove_all(home_); }
  void write(const std::string& name, const std::string& text) {
    ASSERT_TRUE(write_file_atomic(home_ + "/" + name, as_bytes(text)));
  }
  AwsKeys keys(Variables variables) {
    variables.emplace("HOME", home_);
    return AwsCredentials(client(), environment(variables), "us-east-1", [] { return kNow; })
        .keys({soon(), {}})
        .value_or(AwsKeys{"error", {}, {}});
  }
  std::string home_;
};

TEST_F(AwsFiles, ProfilesGiveKeysRegionAndEndpoint) {
  write(".aws/credentials",
        "[default]\naws_access_key_id=D\naws_secret_access_key = ds\n\n# more\n[work]\naws_access_key_id = W\n"
        "aws_secret_access_key = ws=\naws_session_token = wt\n");
  write(".aws/config",
        "[default]\nregion = eu-central-1\n[profile work]\nregion=us-west-2\nendpoint_url = http://minio:9000/\ns3 =\n"
        "  addressing_style = virtual\n");
  EXPECT_EQ(keys({}), (AwsKeys{"D", "ds", ""}));
  EXPECT_EQ(keys({{"AWS_PROFILE", "work"}}), (AwsKeys{"W", "ws=", "wt"}));
  EXPECT_EQ(keys({{"AWS_ACCESS_KEY_ID", "E"}, {"AWS_SECRET_ACCESS_KEY", "es"}}), (AwsKeys{"E", "es", ""}));
  EXPECT_EQ(keys({{"AWS_PROFILE", "none"}}).access_key, "error");
  auto settings = [&](Variables variables) {
    variables.emplace("HOME", home_);
    return s3_settings(environment(variables));
  };
  EXPECT_EQ(settings({})->region, "eu-central-1");
  EXPECT_FALSE(settings({})->path_style);
  auto work = settings({{"AWS_PROFILE", "work"}}).value();
  EXPECT_EQ(work.endpoint, "http://minio:9000");
  EXPECT_FALSE(work.path_style);
  EXPECT_TRUE(settings({{"AWS_ENDPOINT_URL_S3", "https://rgw.example"}})->path_style);
  EXPECT_EQ(settings({{"AWS_REGION", "eu/../x"}}).error().code, Code::kInvalid);
  EXPECT_EQ(settings({{"AWS_ENDPOINT_URL", "ftp://x"}}).error().code, Code::kInvalid);
}

TEST_F(AwsFiles, AWebIdentityIsExchangedAndRenewedBeforeItExpires) {
  write("token", "jwt.token\n");
  std::atomic<int> issued = 0;
  std::atomic<bool> down = false;
  ScriptedServer service([&](const Request& r) -> Response {
    if (down) return {.status = 400};
    if (r.body.find("RoleArn=arn%3Aaws%3Aiam%3A%3A1%3Arole%2Fr") == std::string::npos ||
        r.body.find("WebIdentityToken=jwt.token") == std::string::npos)
      return {.status = 400};
    return {.body = "<R><Credentials><AccessKeyId>A" + std::to_string(++issued) +
                    "</AccessKeyId><SecretAccessKey>s</SecretAccessKey><SessionToken>t</SessionToken>"
                    "<Expiration>2013-05-24T01:00:00Z</Expiration></Credentials></R>"};
  });
  std::atomic<int64_t> now = kNow;
  AwsCredentials credentials(client(),
                             environment({{"AWS_WEB_IDENTITY_TOKEN_FILE", home_ + "/token"},
                                          {"AWS_ROLE_ARN", "arn:aws:iam::1:role/r"},
                                          {"AWS_ENDPOINT_URL_STS", service.url("")}}),
                             "us-east-1", [&] { return now.load(); });
  const Patience patience{soon(), {}};
  EXPECT_EQ(credentials.keys(patience)->access_key, "A1");
  now = kNow + 54 * 60;
  EXPECT_EQ(credentials.keys(patience)->access_key, "A1");
  now = kNow + 56 * 60;
  down = true;
  EXPECT_EQ(credentials.keys(patience)->access_key, "A1");  // it still holds
  down = false;
  EXPECT_EQ(credentials.keys(patience)->access_key, "A2");
  now = kNow + 61 * 60;
  down = true;
  EXPECT_EQ(credentials.keys(patience).error().code, Code::kUnauthorized);
}

TEST_F(AwsFiles, KeysThatHaveExpiredAreLookedUpAnew) {
  write(".aws/credentials", "[default]\naws_access_key_id=OLD\naws_secret_access_key=s\n");
  ScriptedServer server([](const Request& r) -> Response {
    if (r.header("authorization").find("Credential=NEW/") == std::string::npos) return s3_error(400, "ExpiredToken");
    return ScriptedServer::serve(r, kContent);
  });
  std::atomic<int64_t> now = kNow;
  auto b = bucket({{"HOME", home_}, {"AWS_ENDPOINT_URL", server.url("")}}, [&] { return now.load(); });
  EXPECT_FALSE(b->blob("key", soon()));
  write(".aws/credentials", "[default]\naws_access_key_id=NEW\naws_secret_access_key=s\n");
  now = kNow + 5;
  EXPECT_TRUE(b->blob("key", soon()));
}

}  // namespace
}  // namespace hydrant::source
