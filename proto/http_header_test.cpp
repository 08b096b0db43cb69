#include "proto/http_header.h"

#include <gtest/gtest.h>

namespace hydrant::proto {
namespace {

TEST(ContentRange, IsReadExactlyOrNotAtAll) {
  auto range = parse_content_range("bytes 0-99/1000").value();
  EXPECT_EQ(range.range, (ByteRange{0, 100}));
  EXPECT_EQ(range.total, 1000u);
  EXPECT_EQ(parse_content_range("bytes 5-5/*")->total, std::nullopt);
  EXPECT_EQ(parse_content_range("bytes */7")->range, std::nullopt);
  for (const char* text : {"", "bytes", "bytes 0-99", "bytes 9-5/10", "bytes 0-10/10", "bytes a-b/c", "items 0-1/2",
                           "bytes -1-2/3", "bytes 0-18446744073709551615/*", "bytes 0-1/99999999999999999999",
                           "bytes */*", "bytes 0-1/2x", "bytes 0 -1/2"})
    EXPECT_FALSE(parse_content_range(text)) << text;
}

TEST(ContentRange, RangeHeaderIsInclusive) { EXPECT_EQ(range_header({5, 10}), "bytes=5-9"); }

TEST(Challenges, AreSplitAtTheNextScheme) {
  auto list = parse_challenges(
      R"(Bearer realm="https://auth.example/token",service="reg",scope="repository:a/b:pull,push" , Basic Realm=x)");
  ASSERT_EQ(list.size(), 2u);
  EXPECT_EQ(list[0].scheme, "bearer");
  EXPECT_EQ(list[0].param("realm"), "https://auth.example/token");
  EXPECT_EQ(list[0].param("scope"), "repository:a/b:pull,push");
  EXPECT_EQ(list[1].scheme, "basic");
  EXPECT_EQ(list[1].param("realm"), "x");
  EXPECT_EQ(list[1].param("scope"), "");
}

TEST(Challenges, TakeEscapesBareSchemesAndTheFirstOfTwo) {
  EXPECT_EQ(parse_challenges(R"(Basic realm="a\"b")")[0].param("realm"), "a\"b");
  auto list = parse_challenges("Negotiate, Basic realm=\"x\"");
  ASSERT_EQ(list.size(), 2u);
  EXPECT_TRUE(list[0].params.empty());
  EXPECT_EQ(parse_challenges("Basic realm=a, realm=b")[0].param("realm"), "a");
}

TEST(Challenges, AMalformedRestIsDropped) {
  EXPECT_TRUE(parse_challenges("").empty());
  EXPECT_TRUE(parse_challenges("\"x\"").empty());
  EXPECT_EQ(parse_challenges("Basic realm=\"open").size(), 1u);
  EXPECT_EQ(parse_challenges("Basic realm=\"a\nb\"")[0].param("realm"), "");
  EXPECT_EQ(parse_challenges("Bearer a=1 @@@ Basic realm=x").size(), 1u);
  std::string many;
  for (int i = 0; i < 100; ++i) many += "S" + std::to_string(i) + ", ";
  EXPECT_EQ(parse_challenges(many).size(), 16u);
}

}  // namespace
}  // namespace hydrant::proto
