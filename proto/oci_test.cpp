#include "proto/oci.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace hydrant::proto {
namespace {

using ::testing::HasSubstr;

std::string digest_text(char c) { return "sha256:" + std::string(64, c); }

std::string descriptor(std::string_view type, char c, const std::string& more = "") {
  return R"({"mediaType":")" + std::string(type) + R"(","digest":")" + digest_text(c) + R"(","size":10)" + more + "}";
}

std::string manifest_text(std::string_view config_type, std::string_view layer_type, const std::string& more = "") {
  return R"({"schemaVersion":2,"config":)" + descriptor(config_type, 'c') + R"(,"layers":[)" +
         descriptor(layer_type, 'a') + "]" + more + "}";
}

constexpr std::string_view kGzip = "application/vnd.oci.image.layer.v1.tar+gzip";

ImageManifest manifest_of(const std::string& text) {
  return std::get<ImageManifest>(decode_manifest(text, "").value());
}

ImageIndex index_of(std::initializer_list<std::string> platforms) {
  ImageIndex index;
  for (const auto& text : platforms) {
    Descriptor entry;
    entry.digest = sha256(as_bytes(text));
    if (!text.empty()) entry.platform = Platform::parse(text).value();
    index.manifests.push_back(entry);
  }
  return index;
}

std::string chosen(const ImageIndex& index, std::string_view wanted) {
  auto entry = choose_platform(index, Platform::parse(wanted).value());
  return entry ? (entry->platform ? entry->platform->text() : "none") : "error";
}

TEST(OciManifest, KindFollowsTheStoreThenTheDocumentThenItsShape) {
  auto image = manifest_text(media::kOciConfig, kGzip);
  EXPECT_TRUE(std::holds_alternative<ImageManifest>(decode_manifest(image, media::kDockerManifest).value()));
  EXPECT_EQ(manifest_of(image).media_type, media::kOciManifest);
  EXPECT_EQ(manifest_of(image).layers[0].size, 10u);
  auto index =
      R"({"schemaVersion":2,"mediaType":")" + std::string(media::kDockerIndex) + R"(","manifests":[)" +
      descriptor(media::kDockerManifest, 'd', R"(,"platform":{"os":"linux","architecture":"arm","variant":"v7"})") +
      "]}";
  auto decoded = std::get<ImageIndex>(decode_manifest(index, "application/json").value());
  EXPECT_EQ(decoded.manifests[0].platform->text(), "linux/arm/v7");
}

TEST(OciManifest, BrokenDocumentsAreCorruptAndForeignOnesUnsupported) {
  auto code = [](std::string_view text) { return decode_manifest(text, "").error().code; };
  EXPECT_EQ(code(""), Code::kCorrupt);
  EXPECT_EQ(code("<html>"), Code::kCorrupt);
  EXPECT_EQ(code("[]"), Code::kCorrupt);
  EXPECT_EQ(code("{\"a\":\"\xff\"}"), Code::kCorrupt);
  EXPECT_EQ(code(std::string(100'000, '[')), Code::kCorrupt);
  EXPECT_EQ(code(R"({"config":5,"layers":[]})"), Code::kCorrupt);
  EXPECT_EQ(code(R"({"config":{"digest":"sha256:12","size":1},"layers":[]})"), Code::kCorrupt);
  EXPECT_EQ(code(R"({"config":{"digest":")" + digest_text('a') + R"(","size":-1},"layers":[]})"), Code::kCorrupt);
  EXPECT_EQ(code(R"({"config":{"digest":")" + digest_text('a') + R"(","size":1e3},"layers":[]})"), Code::kCorrupt);
  EXPECT_EQ(code(R"({"config":{"digest":"sha512:00","size":1},"layers":[]})"), Code::kUnsupported);
  EXPECT_EQ(code(manifest_text("", kGzip, R"(,"manifests":[])")), Code::kCorrupt);
  EXPECT_EQ(code("{}"), Code::kUnsupported);
  EXPECT_THAT(decode_manifest(R"({"schemaVersion":1})", "").error().what, HasSubstr("schema 1"));
}

TEST(OciManifest, WhatIsNoImageIsNamed) {
  EXPECT_TRUE(check_is_image(manifest_of(manifest_text(media::kDockerConfig, kGzip))));
  auto why = [](const std::string& text) { return check_is_image(manifest_of(text)).error().what; };
  EXPECT_THAT(why(manifest_text("application/vnd.cncf.helm.config.v1+json", "x")), HasSubstr("a Helm chart, not"));
  EXPECT_THAT(why(manifest_text("application/vnd.oci.empty.v1+json", "x", R"(,"artifactType":"application/vnd.sbom")")),
              HasSubstr("application/vnd.sbom"));
  EXPECT_THAT(why(manifest_text(media::kOciConfig, "application/x-odd")),
              HasSubstr("layer 0: unknown layer type 'application/x-odd'"));
  EXPECT_THAT(why(manifest_text(media::kOciConfig, std::string(kGzip) + "+encrypted")), HasSubstr("encrypted"));
}

TEST(OciConfig, DiffIdsMustMatchTheLayers) {
  auto config = decode_config(R"({"os":"linux","architecture":"amd64","config":{"Env":["A=1"],"Cmd":null,"User":"u"},
    "rootfs":{"type":"layers","diff_ids":[")" +
                              digest_text('1') + R"("]}})")
                    .value();
  EXPECT_EQ(config.platform.text(), "linux/amd64");
  EXPECT_EQ(config.env, std::vector<std::string>{"A=1"});
  auto manifest = manifest_of(manifest_text(media::kOciConfig, kGzip));
  EXPECT_TRUE(settle_diff_ids(manifest, config));
  EXPECT_EQ(config.diff_ids.size(), 1U);
  auto none = decode_config("{}").value();
  EXPECT_EQ(settle_diff_ids(manifest, none).error().code, Code::kCorrupt);
  config.diff_ids.emplace_back();
  EXPECT_EQ(settle_diff_ids(manifest, config).error().code, Code::kCorrupt);
  EXPECT_FALSE(decode_config(R"({"rootfs":{"diff_ids":[5]}})"));
  EXPECT_FALSE(decode_config(R"({"rootfs":{"diff_ids":[]},"config":{"Env":[1]}})"));
}

TEST(OciConfig, ErofsLayersNeedNoDiffIdsInTheConfig) {
  ImageManifest manifest;
  manifest.layers.resize(2);
  manifest.layers[0].media_type = "application/vnd.erofs";
  manifest.layers[0].digest = *Digest::parse(digest_text('1'));
  manifest.layers[1].media_type = "application/vnd.erofs+zstd";
  manifest.layers[1].digest = *Digest::parse(digest_text('2'));
  ImageConfig config;
  EXPECT_EQ(settle_diff_ids(manifest, config).error().code, Code::kCorrupt) << "zstd has a diff_id of its own";
  manifest.layers[1].annotations["org.erofs.uncompressed-digest"] = digest_text('3');
  config = {};
  ASSERT_TRUE(settle_diff_ids(manifest, config));
  EXPECT_EQ(config.diff_ids[0].text(), digest_text('1'));
  EXPECT_EQ(config.diff_ids[1].text(), digest_text('3'));
  manifest.layers[1].annotations["org.erofs.uncompressed-digest"] = "md5:1";
  EXPECT_FALSE(settle_diff_ids(manifest, config));
}

TEST(OciPlatform, TheBestEntryIsChosen) {
  auto index = index_of({"linux/arm/v6", "linux/amd64", "linux/arm/v7", "linux/arm64/v8", "windows/amd64"});
  EXPECT_EQ(chosen(index, "linux/amd64"), "linux/amd64");
  EXPECT_EQ(chosen(index, "linux/x86_64"), "linux/amd64");
  EXPECT_EQ(chosen(index, "linux/arm64"), "linux/arm64/v8");
  EXPECT_EQ(chosen(index, "linux/arm/v7"), "linux/arm/v7");
  EXPECT_EQ(chosen(index, "linux/arm/v8"), "linux/arm/v7");
  EXPECT_EQ(chosen(index, "linux/arm"), "linux/arm/v6");
  EXPECT_EQ(chosen(index, "linux/arm/v5"), "error");
  EXPECT_EQ(chosen(index, "linux/s390x"), "error");
  EXPECT_THAT(choose_platform(index, {"linux", "s390x", ""}).error().what, HasSubstr("linux/amd64, linux/arm/v7"));
  EXPECT_EQ(chosen(index_of({"linux/amd64/v3", "linux/amd64"}), "linux/amd64"), "linux/amd64");
  EXPECT_EQ(chosen(index_of({""}), "linux/amd64"), "none");
  EXPECT_EQ(chosen(index_of({"", "unknown/unknown"}), "linux/amd64"), "error");
  for (const char* text : {"", "linux", "linux/", "a/b/c/d", "linux/a b"}) EXPECT_FALSE(Platform::parse(text)) << text;
}

TEST(OciDescriptor, BytesMustHaveItsSizeAndDigest) {
  Descriptor good{.media_type = {},
                  .digest = sha256(as_bytes("abc")),
                  .size = 3,
                  .annotations = {},
                  .platform = {},
                  .artifact_type = {}};
  EXPECT_TRUE(check_bytes(good, as_bytes("abc")));
  EXPECT_EQ(check_bytes(good, as_bytes("abd")).error().code, Code::kCorrupt);
  EXPECT_EQ(check_bytes(good, as_bytes("abcd")).error().code, Code::kCorrupt);
}

TEST(RegistryErrors, AreOneCleanLine) {
  EXPECT_EQ(registry_errors(R"({"errors":[{"code":"A","message":"b\nc"},{"message":"d"},5]})"), "A: b c; d");
  EXPECT_EQ(registry_errors("<html>"), "");
  EXPECT_EQ(registry_errors(R"({"errors":"no"})"), "");
  std::string many = R"({"errors":[{"message":")";
  for (int i = 0; i < 500; ++i) many += "é";
  EXPECT_LE(registry_errors(many + "\"}]}").size(), 300u);
}

}  // namespace
}  // namespace hydrant::proto
