#include "proto/index_artifact.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "base/file.h"

namespace hydrant::proto {
namespace {

Digest digest_of(const std::string& text) { return sha256(as_bytes(text)); }

IndexArtifact example() {
  IndexArtifact artifact;
  artifact.subject = {.media_type = std::string(media::kOciManifest),
                      .digest = digest_of("image"),
                      .size = 700,
                      .annotations = {},
                      .platform = {},
                      .artifact_type = {}};
  artifact.layers = {{digest_of("l1"), digest_of("d1"), digest_of("r1"), digest_of("i1"), 100},
                     {digest_of("l2"), digest_of("d2"), digest_of("r2"), digest_of("i2"), 200}};
  artifact.prefetch = {digest_of("list"), 300};
  artifact.generator = "hydrant 1";
  artifact.signature = "00ff";
  return artifact;
}

Result<IndexArtifact> decode(const std::string& text) {
  auto document = decode_manifest(text, "");
  if (!document) return fail(document.error());
  return decode_index_artifact(std::get<ImageManifest>(*document));
}

TEST(IndexArtifact, ArrivesAsItWasSent) {
  auto sent = example();
  auto got = decode(encode(sent));
  ASSERT_TRUE(got) << got.error().what;
  EXPECT_EQ(got->layers, sent.layers);
  EXPECT_EQ(got->prefetch, sent.prefetch);
  EXPECT_EQ(got->subject.digest, sent.subject.digest);
  EXPECT_EQ(got->signature, "00ff");
  EXPECT_EQ(signed_text(*got), signed_text(sent));
  EXPECT_EQ(got->of(digest_of("l2"))->index, digest_of("i2"));
  EXPECT_EQ(got->of(digest_of("l3")), nullptr);
}

// The golden files of docs/formats/index-artifact.md: what is in registries stays signed and readable.
TEST(IndexArtifact, TheFormatDoesNotDrift) {
  auto golden = read_file(HYDRANT_TESTDATA "/index-artifact-v1.json");
  auto signed_golden = read_file(HYDRANT_TESTDATA "/index-artifact-v1.signed");
  ASSERT_TRUE(golden && signed_golden);
  auto got = decode(*golden);
  ASSERT_TRUE(got) << got.error().what;
  EXPECT_EQ(got->layers, example().layers);
  EXPECT_EQ(got->prefetch, example().prefetch);
  EXPECT_EQ(signed_text(*got), *signed_golden);
  EXPECT_EQ(encode(example()), *golden);
}

TEST(IndexArtifact, ASignatureCoversTheSubjectAndEveryBlob) {
  const auto text = signed_text(example());
  auto changed = example();
  changed.subject.digest = digest_of("other");
  EXPECT_NE(signed_text(changed), text);
  changed = example();
  changed.layers[1].index = digest_of("other");
  EXPECT_NE(signed_text(changed), text);
  changed = example();
  changed.layers[0].layer = digest_of("other");
  EXPECT_NE(signed_text(changed), text);
  changed = example();
  changed.prefetch.reset();
  EXPECT_NE(signed_text(changed), text);
}

TEST(IndexArtifact, WhatDoesNotBindIsRefusedAndTheUnknownIgnored) {
  auto json = nlohmann::json::parse(encode(example()));
  auto without = json;
  without["layers"][0]["annotations"].erase("vnd.hydrant.layer.diff-id");
  EXPECT_EQ(decode(without.dump()).error().code, Code::kCorrupt);
  auto twice = json;
  twice["layers"][1]["annotations"]["vnd.hydrant.layer.digest"] = digest_of("l1").text();
  EXPECT_EQ(decode(twice.dump()).error().code, Code::kCorrupt);
  auto orphan = json;
  orphan.erase("subject");
  EXPECT_EQ(decode(orphan.dump()).error().code, Code::kCorrupt);
  auto other = json;
  other["artifactType"] = "application/example";
  EXPECT_EQ(decode(other.dump()).error().code, Code::kCorrupt);
  auto later = json;
  later["layers"][0]["mediaType"] = "application/vnd.hydrant.layer-index.v9";
  auto got = decode(later.dump());
  ASSERT_TRUE(got) << got.error().what;
  EXPECT_EQ(got->layers.size(), 1U);
}

TEST(IndexArtifact, TheListOfReferrersKeepsWhatOthersPutThere) {
  Descriptor entry;
  entry.media_type = media::kOciManifest;
  entry.digest = digest_of("a");
  entry.size = 5;
  entry.artifact_type = media::kIndexArtifact;
  const std::string foreign =
      R"({"schemaVersion":2,"x":[1],"manifests":[{"digest":"sha512:00","size":1,"mystery":{"a":1}}]})";
  auto list = with_referrer(foreign, entry);
  ASSERT_TRUE(list) << list.error().what;
  auto json = nlohmann::json::parse(*list);
  EXPECT_EQ(json["x"], nlohmann::json::parse("[1]"));
  EXPECT_EQ(json["manifests"][0]["mystery"]["a"], 1);
  EXPECT_EQ(json["manifests"][1]["digest"], entry.digest.text());
  EXPECT_EQ(json["manifests"][1]["artifactType"], std::string(media::kIndexArtifact));
  EXPECT_EQ(with_referrer(*list, entry).value(), *list) << "once is enough";
  EXPECT_EQ(nlohmann::json::parse(with_referrer("", entry).value())["manifests"].size(), 1U);
  EXPECT_FALSE(with_referrer("{}", entry));
  EXPECT_FALSE(with_referrer("[", entry));
}

TEST(IndexArtifact, AConvertedImageTakesItsOriginalsPlaceInAnIndexWhichElseStays) {
  const std::string index = R"({"schemaVersion":2,"annotations":{"a":"b"},"manifests":[
      {"mediaType":"m","digest":")" +
                            digest_of("amd64").text() + R"(","size":1,"platform":{"os":"linux"},"odd":[1]},
      {"mediaType":"m","digest":")" +
                            digest_of("arm64").text() + R"(","size":2}]})";
  auto made = with_manifest(index, digest_of("amd64"), digest_of("copy"), 77);
  ASSERT_TRUE(made) << made.error().what;
  auto expected = nlohmann::json::parse(index);
  expected["manifests"][0]["digest"] = digest_of("copy").text();
  expected["manifests"][0]["size"] = 77;
  EXPECT_EQ(nlohmann::json::parse(*made), expected);
  EXPECT_EQ(with_manifest(index, digest_of("riscv64"), digest_of("copy"), 77).error().code, Code::kCorrupt);
  for (const char* none : {"[", "{}", R"({"manifests":{}})", R"({"manifests":[1,{"digest":[]}]})"})
    EXPECT_EQ(with_manifest(none, digest_of("amd64"), digest_of("copy"), 77).error().code, Code::kCorrupt) << none;
}

TEST(IndexArtifact, TheFallbackTagIsTheDigestWithADash) {
  EXPECT_EQ(referrers_tag(digest_of("a")), "sha256-" + digest_of("a").hex());
}

}  // namespace
}  // namespace hydrant::proto
