#include "source/hosts/hosts_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace hydrant::source {
namespace {

using namespace std::chrono_literals;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Pair;

TEST(HostsFile, MirrorsComeInTheOrderOfTheFileAndTheRegistryLast) {
  auto file = parse_hosts_file(R"(
server = "https://registry.example"
[host."https://z.example"]
  capabilities = ["pull", "resolve"]
[host."http://a.example:5000/cache"]
  capabilities = ["pull"]
  skip_verify = true
[host."a-bare-name.example"]
)")
                  .value();
  ASSERT_EQ(file.hosts.size(), 3u);
  EXPECT_EQ(file.hosts[0].url, "https://z.example/v2");
  EXPECT_TRUE(file.hosts[0].pull && file.hosts[0].resolve && !file.hosts[0].push);
  EXPECT_EQ(file.hosts[1].url, "http://a.example:5000/cache/v2");
  EXPECT_TRUE(file.hosts[1].pull && !file.hosts[1].resolve && file.hosts[1].options.skip_verify);
  EXPECT_EQ(file.hosts[2].url, "https://a-bare-name.example/v2");
  EXPECT_TRUE(file.hosts[2].pull && file.hosts[2].resolve && file.hosts[2].push);
  EXPECT_EQ(file.server.url, "https://registry.example/v2");
}

TEST(HostsFile, PathsAreTakenAsTheyAreWhenTheFileSaysSo) {
  auto file = parse_hosts_file(R"(
[host."https://one.example/v2/proxy"]
  override_path = true
[host."https://two.example/v2/"]
[host."https://three.example"]
  override_path = true
)")
                  .value();
  EXPECT_EQ(file.hosts[0].url, "https://one.example/v2/proxy");
  EXPECT_EQ(file.hosts[1].url, "https://two.example/v2");
  EXPECT_EQ(file.hosts[2].url, "https://three.example/v2");
  EXPECT_EQ(file.server, HostEntry{});
}

TEST(HostsFile, CertificatesComeInEveryFormOfTheFormat) {
  auto file = parse_hosts_file(R"(
ca = "own.pem"
client = [["cert.pem", "key.pem"], ["both.pem"]]
[host."https://one.example"]
  ca = ["/a.pem", "b.pem"]
  client = "both.pem"
[host."https://two.example"]
  client = ["x.pem", "y.pem"]
)")
                  .value();
  EXPECT_THAT(file.server.ca_files, ElementsAre("own.pem"));
  EXPECT_THAT(file.server.client_certs, ElementsAre(Pair("cert.pem", "key.pem"), Pair("both.pem", "both.pem")));
  EXPECT_THAT(file.hosts[0].ca_files, ElementsAre("/a.pem", "b.pem"));
  EXPECT_THAT(file.hosts[0].client_certs, ElementsAre(Pair("both.pem", "both.pem")));
  EXPECT_THAT(file.hosts[1].client_certs, ElementsAre(Pair("x.pem", "x.pem"), Pair("y.pem", "y.pem")));
}

TEST(HostsFile, HeadersProxiesAndTimes) {
  auto file = parse_hosts_file(R"(
[host."http://127.0.0.1:4001"]
  dial_timeout = "1500ms"
  proxy = "http://127.0.0.1:65001"
  something_new = 7
  [host."http://127.0.0.1:4001".header]
    X-Dragonfly-Registry = "https://registry.example"
    X-Two = ["a", "b"]
)")
                  .value();
  const auto& options = file.hosts[0].options;
  EXPECT_THAT(options.headers, ElementsAre("X-Dragonfly-Registry: https://registry.example", "X-Two: a", "X-Two: b"));
  EXPECT_EQ(options.proxy, "http://127.0.0.1:65001");
  EXPECT_EQ(options.connect_timeout, 1500ms);
  EXPECT_EQ(parse_hosts_file("[host.'h.example']\ndial_timeout = 3").value().hosts[0].options.connect_timeout, 3s);
}

TEST(HostsFile, NothingIsTheRegistryItself) {
  auto file = parse_hosts_file("").value();
  EXPECT_THAT(file.hosts, IsEmpty());
  EXPECT_EQ(file.server, HostEntry{});
}

TEST(HostsFile, WhatIsWrongIsToldWithItsLine) {
  auto wrong = [](std::string_view text, std::string_view said) {
    auto file = parse_hosts_file(text);
    ASSERT_FALSE(file) << text;
    EXPECT_EQ(file.error().code, Code::kInvalid);
    EXPECT_THAT(file.error().what, HasSubstr(std::string(said)));
  };
  wrong("server = \n", "line 1");
  wrong("\nserver = 5", "line 2: server must be a URL");
  wrong("\n[:5000\"]", "line 2");
  wrong("\n\u00e9 = 5", "line 2");
  wrong("host = 5", "host must be tables");
  wrong("[host]\n'h.example' = 5", "line 2: host must be tables");
  wrong("[host.'h.example']\nskip_verify = 'yes'", "line 2: skip_verify must be true or false");
  wrong("[host.'h.example']\ncapabilities = ['fly']", "not 'fly'");
  wrong("[host.'h.example']\nca = [5]", "ca must be a text");
  wrong("[host.'h.example']\nclient = [['a', 'b', 'c']]", "pairs of certificate and key");
  wrong("[host.'h.example']\ndial_timeout = 'soon'", "duration");
  wrong("[host.'h.example']\ndial_timeout = '99999999999999999m'", "duration");
  wrong("[host.'h.example']\nproxy = 'not a url'", "proxy must be one URL");
  wrong("[host.'h.example'.header]\nx = \"a\\r\\nb: c\"", "a name and one line");
  wrong("[host.'ftp://h.example']", "no http(s) URL");
  wrong("[host.'https://h.example/?x']", "no http(s) URL");
  wrong(std::string((1 << 20) + 1, '\n'), "larger than 1 MiB");
}

}  // namespace
}  // namespace hydrant::source
