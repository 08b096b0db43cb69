#include "proto/s3_xml.h"

#include <gtest/gtest.h>

namespace hydrant::proto {
namespace {

TEST(S3Xml, ErrorsTellCodeAndRegion) {
  auto error = decode_s3_error(
      "<?xml version=\"1.0\"?>\n<Error><Code>AuthorizationHeaderMalformed</Code><Message>expecting "
      "&apos;eu-west-1&apos;"
      "</Message><Region>eu-west-1</Region></Error>");
  EXPECT_EQ(error.code, "AuthorizationHeaderMalformed");
  EXPECT_EQ(error.message, "expecting 'eu-west-1'");
  EXPECT_EQ(error.region, "eu-west-1");
  for (const char* text : {"", "<html>no</html>", "<Error>", "<Error><Code>", "<Error><Code>&;</Code></Error>"})
    EXPECT_EQ(decode_s3_error(text).code, "") << text;
}

TEST(S3Xml, ListingsGiveKeysAsTheyAre) {
  auto page = decode_s3_listing(
      "<ListBucketResult "
      "xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><Name>b</Name><IsTruncated>true</IsTruncated>"
      "<Contents><Key>a &amp; b/&#233;&#xA;</Key><ETag>&quot;1&quot;</ETag><Size>12</Size></Contents>"
      "<Contents><Key>&lt;c&gt;</Key><Size>0</Size><Owner/></Contents>"
      "<NextContinuationToken>t/=</NextContinuationToken></ListBucketResult>");
  ASSERT_TRUE(page) << page.error().what;
  ASSERT_EQ(page->objects.size(), 2u);
  EXPECT_EQ(page->objects[0].key, "a & b/\xc3\xa9\n");
  EXPECT_EQ(page->objects[0].size, 12u);
  EXPECT_EQ(page->objects[0].etag, "\"1\"");
  EXPECT_EQ(page->objects[1].key, "<c>");
  EXPECT_EQ(page->continuation, "t/=");
}

TEST(S3Xml, BrokenListingsAreCorrupt) {
  for (const char* body :
       {"", "<Contents><Key>a</Key><Size>1</Size></Contents>", "<IsTruncated>true</IsTruncated>",
        "<IsTruncated>false</IsTruncated><Contents><Key>a</Key></Contents>",
        "<IsTruncated>false</IsTruncated><Contents><Key></Key><Size>1</Size></Contents>",
        "<IsTruncated>false</IsTruncated><Contents><Key>a</Key><Size>-1</Size></Contents>",
        "<IsTruncated>false</IsTruncated><Contents><Key>a</Key><Size>99999999999999999999</Size></Contents>"})
    EXPECT_EQ(decode_s3_listing("<ListBucketResult>" + std::string(body) + "</ListBucketResult>").error().code,
              Code::kCorrupt)
        << body;
  EXPECT_EQ(decode_s3_listing("<html></html>").error().code, Code::kCorrupt);
}

}  // namespace
}  // namespace hydrant::proto
