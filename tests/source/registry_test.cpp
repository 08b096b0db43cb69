// Our registry source against Debian's docker-registry with basic authentication, and an image that skopeo pushed.
#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include <atomic>
#include <filesystem>
#include <thread>

#include "base/file.h"
#include "source/auth/base64.h"
#include "source/open.h"

extern char** environ;

namespace hydrant::source {
namespace {

using namespace std::chrono_literals;
using ::testing::HasSubstr;
using ::testing::Not;

Deadline soon() { return Deadline::after(30s); }

bool installed(const std::string& program) {
  for (const char* directory : {"/usr/bin/", "/usr/sbin/", "/usr/local/bin/"})
    if (std::filesystem::exists(directory + program)) return true;
  return false;
}

pid_t start(std::vector<std::string> words, const std::string& log) {
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_addopen(&actions, 1, log.c_str(), O_WRONLY | O_CREAT | O_APPEND, 0600);
  posix_spawn_file_actions_adddup2(&actions, 1, 2);
  std::vector<char*> arguments;
  for (auto& word : words) arguments.push_back(word.data());
  arguments.push_back(nullptr);
  pid_t pid = -1;
  if (posix_spawnp(&pid, arguments[0], &actions, nullptr, arguments.data(), environ)) pid = -1;
  posix_spawn_file_actions_destroy(&actions);
  return pid;
}

bool run(std::vector<std::string> words, const std::string& log) {
  int status = -1;
  pid_t pid = start(std::move(words), log);
  return pid > 0 && ::waitpid(pid, &status, 0) == pid && status == 0;
}

uint16_t free_port() {
  Fd fd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof address;
  if (::bind(fd.get(), reinterpret_cast<sockaddr*>(&address), size)) return 0;
  ::getsockname(fd.get(), reinterpret_cast<sockaddr*>(&address), &size);
  return ntohs(address.sin_port);
}

// One registry for all tests of the suite, in a directory that goes with it.
class DockerRegistry : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    for (const char* program : {"docker-registry", "skopeo", "htpasswd"})
      if (!installed(program)) missing_ = program;
    if (!missing_.empty()) return;
    char name[] = "/tmp/hydrant-registry-XXXXXX";
    directory_ = ::mkdtemp(name);
    host_ = "127.0.0.1:" + std::to_string(free_port());
    ASSERT_TRUE(run({"htpasswd", "-cbB", directory_ + "/htpasswd", "ann", "right"}, log()));
    write("config.yml", "version: 0.1\nlog: {level: error}\nstorage: {filesystem: {rootdirectory: " + directory_ +
                            "/data}}\nhttp: {addr: \"" + host_ +
                            "\"}\nauth: {htpasswd: {realm: test, path: " + directory_ + "/htpasswd}}\n");
    // Ends with this process, however that ends.
    registry_ =
        start({"setpriv", "--pdeathsig", "KILL", "docker-registry", "serve", directory_ + "/config.yml"}, log());
    ASSERT_GT(registry_, 0);
    make_layout();
    HttpClient patient(
        {.attempts = 1000, .first_backoff = 20ms, .longest_backoff = 50ms, .ca_file = {}, .user_agent = {}});
    HttpRequest ping{.url = "http://" + host_ + "/v2/",
                     .headers = {},
                     .body = {},
                     .range = {},
                     .authorizer = nullptr,
                     .patience = {soon(), {}}};
    auto up = patient.get(ping, 1 << 20);
    ASSERT_TRUE(up) << up.error().what << read_file(log()).value_or("");
    ASSERT_TRUE(run({"skopeo", "copy", "--dest-creds", "ann:right", "--dest-tls-verify=false",
                     "oci:" + directory_ + "/layout:1", "docker://" + host_ + "/team/app:1"},
                    log()))
        << read_file(log()).value_or("");
  }
  static void TearDownTestSuite() {
    if (registry_ > 0) {
      ::kill(registry_, SIGKILL);
      ::waitpid(registry_, nullptr, 0);
    }
    if (!directory_.empty()) std::filesystem::remove_all(directory_);
  }
  void SetUp() override {
    if (!missing_.empty()) GTEST_SKIP() << "SKIPPED, NOT TESTED: " << missing_ << " is not installed";
  }

  static std::string log() { return directory_ + "/log"; }
  static void write(const std::string& name, const std::string& text) {
    auto path = directory_ + "/" + name;
    ASSERT_TRUE(make_directories(std::filesystem::path(path).parent_path()));
    ASSERT_TRUE(write_file_atomic(path, as_bytes(text)));
  }
  static std::string put(std::string_view type, const std::string& text) {
    auto digest = sha256(as_bytes(text));
    write("layout/blobs/sha256/" + digest.hex(), text);
    return R"({"mediaType":")" + std::string(type) + R"(","digest":")" + digest.text() + R"(","size":)" +
           std::to_string(text.size()) + "}";
  }
  // The registry and skopeo store layers without looking into them, so the layer is bytes that are easy to compare.
  static void make_layout() {
    for (size_t i = 0; i < 3'000'000; ++i) layer_ += static_cast<char>(i * 2654435761u >> 13);
    auto config = put(proto::media::kOciConfig,
                      R"({"os":"linux","architecture":"amd64","config":{},"rootfs":{"type":"layers","diff_ids":[")" +
                          sha256(as_bytes(layer_)).text() + R"("]}})");
    auto manifest =
        put(proto::media::kOciManifest,
            R"({"schemaVersion":2,"mediaType":")" + std::string(proto::media::kOciManifest) + R"(","config":)" +
                config + R"(,"layers":[)" + put("application/vnd.oci.image.layer.v1.tar", layer_) + "]}");
    manifest.insert(manifest.size() - 1, R"(,"annotations":{"org.opencontainers.image.ref.name":"1"})");
    write("layout/index.json", R"({"schemaVersion":2,"manifests":[)" + manifest + "]}");
    write("layout/oci-layout", R"({"imageLayoutVersion":"1.0.0"})");
  }

  static Result<std::shared_ptr<ImageStore>> open(const std::string& source, const std::string& login) {
    HYDRANT_TRY(auto reference, proto::SourceReference::parse(source));
    OpenOptions options;
    if (!login.empty()) {
      auto json = R"({"auths":{")" + host_ + R"(":{"auth":")" + base64_encode(login) + R"("}}})";
      HYDRANT_TRY(options.credentials, DockerConfig::parse(json));
    }
    return open_image_store(reference, std::make_shared<HttpClient>(), options);
  }
  static Result<ResolvedImage> resolve(const std::string& name, const std::string& login) {
    HYDRANT_TRY(auto reference, proto::SourceReference::parse(name));
    HYDRANT_TRY(auto store, open(name, login));
    return resolve_image(*store, reference.image_reference(), std::nullopt, soon());
  }

  static inline std::string missing_, directory_, host_, layer_;
  static inline pid_t registry_ = -1;
};

TEST_F(DockerRegistry, GivesManifestConfigAndRangesOfLayers) {
  auto image = resolve(host_ + "/team/app:1", "ann:right");
  ASSERT_TRUE(image) << image.error().what;
  ASSERT_EQ(image->manifest.layers.size(), 1u);
  auto store = open(host_ + "/team/app:1", "ann:right").value();
  const auto& stored = image->manifest.layers[0];
  auto blob = store->blob(stored.digest, stored.size, soon()).value();
  auto read = [&](ByteRange range) { return read_all(*blob, {.range = range, .deadline = soon(), .stop = {}}); };
  auto whole = read({0, stored.size});
  ASSERT_TRUE(whole) << whole.error().what;
  EXPECT_EQ(sha256(*whole), stored.digest);
  for (ByteRange range : {ByteRange{0, 1}, {stored.size - 1, stored.size}, {stored.size / 3, stored.size / 2}}) {
    auto part = read(range);
    ASSERT_TRUE(part) << part.error().what;
    EXPECT_EQ(as_text(*part), as_text(Bytes(*whole).subspan(range.begin, range.size())));
  }
  auto by_digest = resolve(host_ + "/team/app@" + image->manifest_digest.text(), "ann:right");
  EXPECT_EQ(by_digest->manifest_digest, image->manifest_digest);
}

TEST_F(DockerRegistry, WrongAndMissingCredentialsAreToldApart) {
  auto wrong = resolve(host_ + "/team/app:1", "ann:wrong").error();
  EXPECT_EQ(wrong.code, Code::kUnauthorized);
  EXPECT_THAT(wrong.what, HasSubstr("refuses the credentials of ann"));
  EXPECT_THAT(wrong.what, Not(HasSubstr("wrong")));
  auto missing = resolve(host_ + "/team/app:1", "").error();
  EXPECT_EQ(missing.code, Code::kUnauthorized);
  EXPECT_THAT(missing.what, HasSubstr("docker login " + host_));
}

TEST_F(DockerRegistry, UnknownImagesTagsAndBlobsAreNotFound) {
  for (const char* name : {"/team/app:2", "/team/none:1"}) {
    auto unknown = resolve(host_ + name, "ann:right").error();
    EXPECT_EQ(unknown.code, Code::kNotFound) << name;
    EXPECT_THAT(unknown.what, HasSubstr(host_ + name + " does not exist"));
  }
  auto store = open(host_ + "/team/app:1", "ann:right").value();
  auto blob = store->blob(sha256(as_bytes("nothing")), 7, soon()).value();
  EXPECT_EQ(read_all(*blob, {.range = {0, 7}, .deadline = soon(), .stop = {}}).error().code, Code::kNotFound);
}

TEST_F(DockerRegistry, UnreachableRegistriesAreNamed) {
  auto host = "127.0.0.1:" + std::to_string(free_port());
  auto gone = resolve(host + "/team/app:1", "").error();
  EXPECT_EQ(gone.code, Code::kUnreachable);
  EXPECT_THAT(gone.what, HasSubstr(host));
}

// nginx in front of a blob, as registries limit their clients: 50 requests a second, no burst.
TEST(LimitedRegistry, ServesManyReadersWithoutOneFailedRead) {
  if (!installed("nginx")) GTEST_SKIP() << "SKIPPED, NOT TESTED: nginx is not installed";
  char name[] = "/tmp/hydrant-limited-XXXXXX";
  const std::string directory = ::mkdtemp(name), host = "127.0.0.1:" + std::to_string(free_port());
  ::chmod(directory.c_str(), 0755);
  const std::string content(100'000, 'x');
  const auto digest = sha256(as_bytes(content));
  const auto blobs = directory + "/v2/app/blobs";
  ASSERT_TRUE(make_directories(blobs, 0755));
  ASSERT_TRUE(write_file_atomic(blobs + "/" + digest.text(), as_bytes(content), 0644));
  const auto config = "daemon off; master_process off; pid " + directory + "/pid; error_log " + directory +
                      "/log; events {}\nhttp { access_log " + directory +
                      "/access; limit_req_zone $binary_remote_addr zone=z:1m rate=50r/s; "
                      "limit_req_status 429;\nserver { listen " +
                      host + "; root " + directory + "; location /v2/app/ { limit_req zone=z; } } }\n";
  ASSERT_TRUE(write_file_atomic(directory + "/nginx.conf", as_bytes(config)));
  pid_t nginx = start({"setpriv", "--pdeathsig", "KILL", "nginx", "-p", directory, "-c", directory + "/nginx.conf"},
                      directory + "/out");
  ASSERT_GT(nginx, 0);
  HttpClient patient(
      {.attempts = 1000, .first_backoff = 20ms, .longest_backoff = 50ms, .ca_file = {}, .user_agent = {}});
  auto up = patient.get({.url = "http://" + host + "/",
                         .headers = {},
                         .body = {},
                         .range = {},
                         .authorizer = nullptr,
                         .patience = {soon(), {}}},
                        1 << 20);
  EXPECT_TRUE(up) << up.error().what << read_file(directory + "/out").value_or("");

  auto reference = proto::SourceReference::parse(host + "/app:1").value();
  auto store = open_image_store(reference, std::make_shared<HttpClient>(), {}).value();
  auto blob = store->blob(digest, content.size(), soon()).value();
  std::atomic<int> good = 0;
  {
    std::vector<std::jthread> threads;
    for (int t = 0; t < 6; ++t)
      threads.emplace_back([&] {
        for (uint64_t i = 0; i < 15; ++i) {
          auto bytes = read_all(*blob, {.range = {i, i + 5000}, .deadline = soon(), .stop = {}});
          good += bytes.has_value();
          if (!bytes) ADD_FAILURE() << bytes.error().what;
        }
      });
  }
  EXPECT_EQ(good, 90);
  EXPECT_THAT(read_file(directory + "/access").value_or(""), HasSubstr("\" 429 "));  // it did limit
  ::kill(nginx, SIGKILL);
  ::waitpid(nginx, nullptr, 0);
  std::filesystem::remove_all(directory);
}

}  // namespace
}  // namespace hydrant::source
