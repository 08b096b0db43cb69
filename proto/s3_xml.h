// What S3 and its token service answer in XML: errors, listings, temporary keys. Namespaces, attributes and everything
// not named here are passed over.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"

namespace hydrant::proto {

// The text of the first element `tag` of `xml` that holds nothing but text, entities decoded; nothing without one.
std::optional<std::string> xml_text(std::string_view xml, std::string_view tag);

struct S3Error {
  std::string code;     // "AccessDenied"; empty: `xml` is no S3 error
  std::string message;  // for people, at most 200 printable characters
  std::string region;   // where the bucket is, if the error tells
};
S3Error decode_s3_error(std::string_view xml);

struct S3Object {
  std::string key;
  uint64_t size = 0;
  std::string etag;  // with its quotes
};
struct S3Listing {
  std::vector<S3Object> objects;
  std::string continuation;  // of the next page; empty: this was the last
};
// A ListObjectsV2 answer. kCorrupt: an entry without key or size, or a page that is not complete.
Result<S3Listing> decode_s3_listing(std::string_view xml);

}  // namespace hydrant::proto
