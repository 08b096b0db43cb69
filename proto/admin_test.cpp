#include "proto/admin.h"

#include <gtest/gtest.h>

namespace hydrant::proto {
namespace {

template <class Message>
Message through_hydrantd(const Message& message) {
  auto decoded = decode_hydrantd_request(encode(HydrantdRequest(message)));
  EXPECT_TRUE(decoded.has_value());
  return std::get<Message>(*decoded);
}

TEST(Admin, AMountRequestComesBackAsItWasSent) {
  MountRequest sent{.dir = "/mnt/a b\"c",
                    .fsid = "f1",
                    .devices = {"d1", "d2"},
                    .domain_id = "hydrant",
                    .meta_digest = "sha256:ab",
                    .source = "localhost:5000/app:1",
                    .image = R"({"layers":[]})",
                    .read_ahead_kb = 512,
                    .proofs = {{"sha256:cd", 1 << 20, 128 << 10, 1}, {}}};
  MountRequest got = through_hydrantd(sent);
  EXPECT_EQ(got.dir, sent.dir);
  EXPECT_EQ(got.fsid, sent.fsid);
  EXPECT_EQ(got.devices, sent.devices);
  EXPECT_EQ(got.domain_id, sent.domain_id);
  EXPECT_EQ(got.meta_digest, sent.meta_digest);
  EXPECT_EQ(got.source, sent.source);
  EXPECT_EQ(got.image, sent.image);
  EXPECT_EQ(got.read_ahead_kb, sent.read_ahead_kb);
  EXPECT_EQ(got.proofs, sent.proofs);
}

TEST(Admin, AProofComesBackAsItWasOrIsRefused) {
  MerkleProof proof{.shape = {.device_size = 1 << 20, .granule = 128 << 10, .layout_version = 1}, .root = {}};
  proof.root.bytes[3] = std::byte(7);
  EXPECT_EQ(parse_proof(to_text(proof)).value(), proof);
  EXPECT_EQ(parse_proof({}).value(), std::nullopt) << "an older peer has none";
  DeviceProof odd = to_text(proof);
  odd.granule = 0;
  EXPECT_EQ(parse_proof(odd).error().code, Code::kInvalid);
  odd = to_text(proof);
  odd.root = "blake3:" + proof.root.hex();
  EXPECT_EQ(parse_proof(odd).error().code, Code::kUnsupported);
}

TEST(Admin, StatMeansADirectoryToHydrantdAndAnImageToFetchd) {
  EXPECT_EQ(through_hydrantd(StatMountRequest{.dir = "/m"}).dir, "/m");
  auto decoded = decode_fetchd_request(encode(FetchdRequest(StatImageRequest{.fsid = "f"})));
  ASSERT_TRUE(decoded.has_value());
  EXPECT_EQ(std::get<StatImageRequest>(*decoded).fsid, "f");
}

TEST(Admin, PlainHttpHasThreeStates) {
  for (std::optional<bool> plain : {std::optional<bool>(), std::optional(true), std::optional(false)}) {
    auto decoded = decode_fetchd_request(encode(FetchdRequest(PrepareRequest{.source = "s", .plain_http = plain})));
    ASSERT_TRUE(decoded.has_value());
    EXPECT_EQ(std::get<PrepareRequest>(*decoded).plain_http, plain);
  }
}

TEST(Admin, UnknownMembersAreIgnoredAndMissingOnesTakeTheirDefaults) {
  auto decoded = decode_fetchd_request(R"({"op":"prepare","source":"s","color":{"a":[1]}})");
  ASSERT_TRUE(decoded.has_value());
  EXPECT_EQ(std::get<PrepareRequest>(*decoded).as, "auto");
}

TEST(Admin, WrongRequestsAreRefused) {
  for (std::string_view line : {"", "{", "[]", "7", "null", "{}", R"({"op":7})", R"({"op":"explode"})",
                                R"({"op":"mount","dir":7})", R"({"op":"mount","devices":[1]})",
                                R"({"op":"mount","read_ahead_kb":-1})", R"({"op":"mount","read_ahead_kb":4294967296})",
                                R"({"op":"ingest.end","size":1.5})", R"({"op":"ingest.end","size":-3})"}) {
    auto decoded = decode_hydrantd_request(line);
    ASSERT_FALSE(decoded.has_value()) << line;
    EXPECT_EQ(decoded.error().code, Code::kInvalid) << line;
  }
}

TEST(Admin, ARequestOfTheOtherDaemonIsRefused) {
  EXPECT_FALSE(decode_hydrantd_request(encode(FetchdRequest(PrepareRequest{}))).has_value());
  EXPECT_FALSE(decode_fetchd_request(encode(HydrantdRequest(ListRequest{}))).has_value());
}

TEST(Admin, DeepAndLongTextIsRefused) {
  EXPECT_FALSE(parse_json(std::string(100'000, '[')).has_value());
  EXPECT_FALSE(parse_json(std::string(40, '[') + std::string(40, ']')).has_value());
  EXPECT_FALSE(parse_json('"' + std::string(kAdminLineLimit, 'x') + '"').has_value());
}

TEST(Admin, AnErrorKeepsItsCodeAndSentence) {
  auto answer = decode_answer(encode_error({.code = Code::kUnauthorized, .what = "r:5000: wrong password"}));
  ASSERT_TRUE(answer.has_value());
  const auto& error = std::get<Error>(*answer);
  EXPECT_EQ(error.code, Code::kUnauthorized);
  EXPECT_EQ(error.what, "r:5000: wrong password");
}

TEST(Admin, EveryCodeHasANameThatComesBack) {
  for (int i = 1; i <= static_cast<int>(Code::kIo); ++i) {
    auto code = static_cast<Code>(i);
    EXPECT_EQ(parse_code(to_string(code)), code);
  }
  EXPECT_EQ(parse_code("ok"), Code::kIo);  // an error is never ok
  EXPECT_EQ(parse_code("brand-new"), Code::kIo);
}

TEST(Admin, ProgressIsToldFromTheResult) {
  auto answer = decode_answer(encode_progress({.phase = "stream", .done = 7, .total = 9, .layers = 2}));
  ASSERT_TRUE(answer.has_value());
  EXPECT_EQ(std::get<Progress>(*answer).done, 7u);
}

TEST(Admin, AStatOfAMountComesBackWhole) {
  StatMountReply sent{.dir = "/m",
                      .state = "live",
                      .devices = {{.id = "d", .size = 1ull << 43, .present = 5, .front = "fuse", .reads = 3}},
                      .metadata = {.id = "f", .size = 4096},
                      .counters = {{"reads", 4}}};
  auto answer = decode_answer(encode_reply(sent));
  ASSERT_TRUE(answer.has_value());
  auto got = decode_reply<StatMountReply>(std::get<Json>(*answer));
  ASSERT_TRUE(got.has_value());
  ASSERT_EQ(got->devices.size(), 1u);
  EXPECT_EQ(got->devices[0].size, 1ull << 43);
  EXPECT_EQ(got->metadata.size, 4096u);
  EXPECT_EQ(got->counters.at("reads"), 4u);
}

TEST(Admin, AStatusCarriesTheKernelsFacts) {
  auto answer = decode_answer(
      encode_reply(StatusReply{.pid = 7, .version = "v", .erofs_file_backed = false, .erofs_over_loops = true}));
  ASSERT_TRUE(answer.has_value());
  auto got = decode_reply<StatusReply>(std::get<Json>(*answer));
  ASSERT_TRUE(got.has_value());
  EXPECT_EQ(got->pid, 7);
  EXPECT_FALSE(got->erofs_file_backed);
  EXPECT_TRUE(got->erofs_over_loops);
}

TEST(Admin, TheEnginesListingComesBackWhole) {
  EngineReply sent{.trace = "read",
                   .caches = {{.tag = "t", .dir = "/d", .state = "A", .on_demand = true, .pins = 2}},
                   .volumes = {{.key = "v", .cookies = 1, .acquired = true}},
                   .cookies = {{.volume = "v", .key = "Dk", .state = "A", .uses = 1, .size = 5}},
                   .counters = {{"culled", 3}}};
  auto answer = decode_answer(encode_reply(sent));
  ASSERT_TRUE(answer.has_value());
  auto got = decode_reply<EngineReply>(std::get<Json>(*answer));
  ASSERT_TRUE(got.has_value());
  EXPECT_EQ(got->trace, "read");
  EXPECT_EQ(got->caches.at(0).pins, 2u);
  EXPECT_TRUE(got->volumes.at(0).acquired);
  EXPECT_EQ(got->cookies.at(0).key, "Dk");
  EXPECT_EQ(got->counters.at("culled"), 3u);
  auto request = decode_hydrantd_request(encode(HydrantdRequest(EngineRequest{.trace = ""})));
  ASSERT_TRUE(request.has_value());
  EXPECT_EQ(std::get<EngineRequest>(*request).trace, "");  // given, and empty: everything off
}

TEST(Admin, TextThatIsNotUtf8DoesNotThrow) {
  EXPECT_NO_THROW(encode(HydrantdRequest(UmountRequest{.dir = "/\xff\xfe"})));
}

TEST(Admin, AnAnswerThatIsNoneOfTheThreeIsInvalid) {
  for (std::string_view line : {"{}", R"({"ok":false})", R"({"error":"x"})", R"({"error":{"code":1,"message":"m"}})",
                                R"({"event":"progress","done":"x"})", "[]"}) {
    EXPECT_FALSE(decode_answer(line).has_value()) << line;
  }
}

}  // namespace
}  // namespace hydrant::proto
