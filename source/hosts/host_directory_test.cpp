#include "source/hosts/host_directory.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "base/file.h"
#include "base/temporary_directory.h"

namespace hydrant::source {
namespace {

using ::testing::HasSubstr;

class HostDirectoryTest : public ::testing::Test {
 protected:
  void put(const std::string& path, const std::string& text) {
    const auto full = directory_.path() + "/" + path;
    std::filesystem::create_directories(std::filesystem::path(full).parent_path());
    ASSERT_TRUE(write_file_atomic(full, as_bytes(text)));
  }
  std::string at(const std::string& path) const { return directory_.path() + "/" + path; }
  std::string first_mirror(const std::string& registry) {
    auto places = hosts_.find(registry).value();
    return places->mirrors.empty() ? "" : places->mirrors.front().url;
  }

  TemporaryDirectory directory_;
  HostDirectory hosts_{{directory_.path() + "/one", directory_.path() + "/two"}};
};

TEST_F(HostDirectoryTest, NothingIsTheRegistryItself) {
  auto places = hosts_.find("registry.example").value();
  EXPECT_TRUE(places->mirrors.empty());
  EXPECT_EQ(places->own.url, "");
  EXPECT_EQ(*places->own.options, HostOptions{});
}

TEST_F(HostDirectoryTest, TheFirstDirectoryThatFitsIsTaken) {
  put("one/_default/hosts.toml", "[host.'any.example']");
  put("two/r.example:5000/hosts.toml", "[host.'never.example']");
  EXPECT_EQ(first_mirror("r.example:5000"), "https://any.example/v2");
  put("one/r.example:5000/hosts.toml", "[host.'colon.example']");
  EXPECT_EQ(first_mirror("r.example:5000"), "https://colon.example/v2");
  put("one/r.example_5000_/hosts.toml", "[host.'underscore.example']");
  EXPECT_EQ(first_mirror("r.example:5000"), "https://underscore.example/v2");
  EXPECT_EQ(first_mirror("docker.io"), "https://any.example/v2");
  EXPECT_EQ(first_mirror("[::1]:5000"), "https://any.example/v2");
}

TEST_F(HostDirectoryTest, CertificatesWithoutAFileAreTheRegistrysAsDockerHasThem) {
  put("two/r.example/b.crt", "second");
  put("two/r.example/a.crt", "first");
  put("two/r.example/me.cert", "certificate");
  put("two/r.example/me.key", "key");
  auto places = hosts_.find("r.example").value();
  EXPECT_TRUE(places->mirrors.empty());
  EXPECT_EQ(places->own.options->ca_pem, "first\nsecond\n");
  EXPECT_EQ(places->own.options->client_cert, at("two/r.example/me.cert"));
  EXPECT_EQ(places->own.options->client_key, at("two/r.example/me.key"));
}

TEST_F(HostDirectoryTest, FilesNamedInHostsTomlAreRelativeToIt) {
  put("one/r.example/hosts.toml", "[host.'m.example']\nca = 'sub/ca.pem'\nclient = 'me.pem'");
  put("one/r.example/sub/ca.pem", "authority");
  put("one/r.example/me.pem", "both");
  auto places = hosts_.find("r.example").value();
  ASSERT_EQ(places->mirrors.size(), 1u);
  EXPECT_EQ(places->mirrors[0].options->ca_pem, "authority\n");
  EXPECT_EQ(places->mirrors[0].options->client_key, at("one/r.example/me.pem"));
  EXPECT_GT(places->mirrors[0].options->connect_timeout.count(), 0) << "others have it as well";
}

TEST_F(HostDirectoryTest, TheSamePlacesAsLongAsTheFilesSayTheSame) {
  put("one/r.example/hosts.toml", "[host.'m.example']");
  auto before = hosts_.find("r.example").value();
  EXPECT_EQ(hosts_.find("r.example").value(), before);
  put("one/r.example/hosts.toml", "[host.'n.example']");
  EXPECT_NE(hosts_.find("r.example").value(), before);
}

TEST_F(HostDirectoryTest, WhatIsWrongIsToldWithItsFile) {
  put("one/r.example/hosts.toml", "[host.'m.example']\nskip_verify = 1");
  auto error = hosts_.find("r.example").error();
  EXPECT_EQ(error.code, Code::kInvalid);
  EXPECT_THAT(error.what, HasSubstr("one/r.example/hosts.toml: line 2"));
  put("one/r.example/hosts.toml", "[host.'m.example']\nca = 'missing.pem'");
  EXPECT_THAT(hosts_.find("r.example").error().what, HasSubstr("missing.pem"));
  put("one/r.example/hosts.toml", "[host.'m.example']\nclient = 'missing.key'");
  EXPECT_THAT(hosts_.find("r.example").error().what, HasSubstr("missing.key"));
}

}  // namespace
}  // namespace hydrant::source
