#include "proto/reference.h"

#include <gtest/gtest.h>

namespace hydrant::proto {
namespace {

const std::string kDigest = "sha256:" + std::string(64, 'a');

std::string canonical(std::string_view text) {
  auto parsed = SourceReference::parse(text);
  return parsed ? parsed->text() : "error: " + std::string(to_string(parsed.error().code));
}

TEST(Reference, ImagesGetDockersDefaults) {
  EXPECT_EQ(canonical("alpine"), "docker.io/library/alpine:latest");
  EXPECT_EQ(canonical("alpine:3.18"), "docker.io/library/alpine:3.18");
  EXPECT_EQ(canonical("ann/app"), "docker.io/ann/app:latest");
  EXPECT_EQ(canonical("index.docker.io/alpine"), "docker.io/library/alpine:latest");
  EXPECT_EQ(canonical("docker://quay.io/a/b:x"), "quay.io/a/b:x");
  EXPECT_EQ(ImageName::parse("alpine")->api_host(), "registry-1.docker.io");
}

TEST(Reference, PortsTagsAndDigestsAreToldApart) {
  EXPECT_EQ(canonical("registry:5000/app:1"), "registry:5000/app:1");
  EXPECT_EQ(canonical("registry:5000/app"), "registry:5000/app:latest");
  EXPECT_EQ(canonical("localhost/app"), "localhost/app:latest");
  EXPECT_EQ(canonical("[::1]:5000/a/b:t"), "[::1]:5000/a/b:t");
  EXPECT_EQ(canonical("Registry/app"), "Registry/app:latest");
  EXPECT_EQ(canonical("registry.example/app@" + kDigest), "registry.example/app@" + kDigest);
  auto both = ImageName::parse("registry.example/app:1@" + kDigest).value();
  EXPECT_EQ(both.tag, "1");
  EXPECT_EQ(both.reference(), kDigest);
  EXPECT_EQ(both.text(), "registry.example/app:1@" + kDigest);
}

TEST(Reference, MalformedImagesAreInvalid) {
  for (const char* text :
       {"",     ":tag",           "/app",        "app:",           "app/",       "UPPER",     "app:-x",
        "a//b", "app@sha256:123", "app@md5:abc", "host:99999/app", "host:0/app", "a..b/c/..", "app__._x",
        "-app", "app-",           "a b",         "r.example/",     "[::1/app",   "app@",      "x.y:z:1/a"})
    EXPECT_EQ(canonical(text), "error: invalid") << text;
  EXPECT_EQ(canonical(std::string(300, 'a')), "error: invalid");
  EXPECT_EQ(canonical(std::string(5000, 'a')), "error: invalid");
}

TEST(Reference, OciDirectoriesEndAtTheFirstColon) {
  auto plain = SourceReference::parse("oci:/srv/image").value();
  EXPECT_EQ(plain.kind, SourceKind::kOciDir);
  EXPECT_EQ(plain.path, "/srv/image");
  EXPECT_EQ(plain.image_reference(), "");
  auto tagged = SourceReference::parse("oci:dir:docker.io/x:1").value();
  EXPECT_EQ(tagged.path, "dir");
  EXPECT_EQ(tagged.image_reference(), "docker.io/x:1");
  EXPECT_EQ(canonical("oci:"), "error: invalid");
  EXPECT_EQ(canonical("oci:dir:"), "error: invalid");
}

TEST(Reference, UrlsKeepTheirSecretsInTextAndLoseThemInDisplay) {
  auto url = SourceReference::parse("https://ann:pw@host.example:8443/p/f.tar?sig=1@2#x").value();
  EXPECT_EQ(url.kind, SourceKind::kHttp);
  EXPECT_EQ(url.text(), "https://ann:pw@host.example:8443/p/f.tar?sig=1@2#x");
  EXPECT_EQ(url.display(), "https://host.example:8443/p/f.tar");
  EXPECT_EQ(url_without_secrets("http://h?a@b/c"), "http://h");
  EXPECT_EQ(SourceReference::parse("s3://bucket/key")->kind, SourceKind::kS3);
  EXPECT_EQ(canonical("http://"), "error: invalid");
  EXPECT_EQ(canonical("http://user@/x"), "error: invalid");
  EXPECT_EQ(canonical("http://h/a b"), "error: invalid");
  EXPECT_EQ(canonical("ftp://h/x"), "error: unsupported");
}

TEST(Reference, FileUrlsAreDecodedAndAbsolute) {
  auto file = SourceReference::parse("file:///srv/a%20b%25").value();
  EXPECT_EQ(file.path, "/srv/a b%");
  EXPECT_EQ(file.text(), "file:///srv/a%20b%25");
  EXPECT_EQ(canonical("file://localhost/x"), "file:///x");
  EXPECT_EQ(canonical("file://relative"), "error: invalid");
  EXPECT_EQ(canonical("file:///a%0"), "error: invalid");
  EXPECT_EQ(canonical("file:///a%00b"), "error: invalid");
}

TEST(Reference, RelativePathsBecomeAbsoluteAndReferencesStay) {
  EXPECT_EQ(absolute_source("oci:images:1", "/home/u"), "oci:/home/u/images:1");
  EXPECT_EQ(absolute_source("oci:/images:1", "/home/u"), "oci:/images:1");
  EXPECT_EQ(absolute_source("file:a%b.img", "/home/u"), "file:///home/u/a%25b.img");
  EXPECT_EQ(absolute_source("file:/a.img", "/home/u"), "file:///a.img");
  EXPECT_EQ(absolute_source("file:///a.img", "/home/u"), "file:///a.img");
  EXPECT_EQ(absolute_source("localhost:5000/app:1", "/home/u"), "localhost:5000/app:1");
}

TEST(Reference, OnlyLoopbackHostsAreLoopback) {
  for (const char* host : {"localhost", "localhost:5000", "127.0.0.1:5000", "127.8.9.1", "[::1]:5000", "[::1]"})
    EXPECT_TRUE(is_loopback_host(host)) << host;
  for (const char* host :
       {"127.evil.example", "localhost.example", "10.0.0.1", "[::2]:1", "[::1].example", "1270.0.0.1"})
    EXPECT_FALSE(is_loopback_host(host)) << host;
}

}  // namespace
}  // namespace hydrant::proto
