// Two HTTP header fields that decide what a source believes: Content-Range and WWW-Authenticate (RFC 9110,
// sections 14.4 and 11.6.1).
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/byte_range.h"

namespace hydrant::proto {

struct ContentRange {
  std::optional<ByteRange> range;  // nothing: "bytes */N" of a 416
  std::optional<uint64_t> total;   // nothing: "*"
};

// Nothing when `value` is not exactly that: another unit, an empty or backward range, a range past the total, overflow.
std::optional<ContentRange> parse_content_range(std::string_view value);

// "bytes=0-99" for [0, 100). The range must not be empty.
std::string range_header(const ByteRange& range);

struct Challenge {
  std::string scheme;                         // lower case: "basic", "bearer"
  std::map<std::string, std::string> params;  // names in lower case

  std::string param(const std::string& name) const;  // empty when missing
};

// All challenges of the field (repeated fields joined by commas), in order. A malformed rest is dropped: what stands
// before it is returned. At most 16 challenges of 16 parameters.
std::vector<Challenge> parse_challenges(std::string_view value);

}  // namespace hydrant::proto
