#include "proto/prefetch_list.h"

#include <gtest/gtest.h>

#include "base/file.h"

namespace hydrant::proto {
namespace {

PrefetchList sample() {
  return {
      .subject = "sha256:abc",
      .runs = 3,
      .entries = {
          {.layer = sha256(as_bytes("a")), .path = "usr/bin/a b\"", .ms = 5, .hits = 3},
          {.layer = sha256(as_bytes("b")), .path = "lib/ü", .offset = 65536, .length = 131072, .ms = 70, .hits = 2}}};
}

TEST(PrefetchListTest, ComesBackAsItWas) {
  auto back = decode_prefetch_list(encode(sample()));
  ASSERT_TRUE(back) << back.error().what;
  EXPECT_EQ(*back, sample());
}

// The golden file of docs/formats/prefetch-list.md.
TEST(PrefetchListTest, TheFormatDoesNotDrift) {
  auto golden = read_file(HYDRANT_TESTDATA "/prefetch-list-v1.json");
  ASSERT_TRUE(golden) << golden.error().what;
  EXPECT_EQ(decode_prefetch_list(*golden).value(), sample());
  EXPECT_EQ(encode(sample()), *golden);
}

TEST(PrefetchListTest, WhatIsNoneIsRefused) {
  auto code = [](const std::string& text) { return decode_prefetch_list(text).error().code; };
  EXPECT_EQ(code("{"), Code::kInvalid);
  EXPECT_EQ(code("[]"), Code::kInvalid);
  EXPECT_EQ(code(R"({"version":2,"subject":"","entries":[]})"), Code::kUnsupported);
  EXPECT_EQ(code(R"({"version":1,"subject":""})"), Code::kInvalid);
  EXPECT_EQ(code(R"({"version":1,"subject":"","entries":[{"layer":"sha256:1","path":"a"}]})"), Code::kInvalid);
  std::string layer = sha256({}).text();
  auto entry = [&](const std::string& rest) {
    return R"({"version":1,"subject":"","entries":[{"layer":")" + layer + R"(","path":"a")" + rest + "}]}";
  };
  EXPECT_TRUE(decode_prefetch_list(entry("")));
  EXPECT_EQ(code(entry(R"(,"off":-1)")), Code::kInvalid);
  EXPECT_EQ(code(entry(R"(,"off":9223372036854775807,"len":1)")), Code::kInvalid);
  EXPECT_EQ(code(entry(R"(,"t":4294967296)")), Code::kInvalid);
  EXPECT_EQ(code(std::string(kMaxPrefetchText + 1, ' ')), Code::kInvalid);
}

}  // namespace
}  // namespace hydrant::proto
