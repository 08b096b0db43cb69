// Content-Range and WWW-Authenticate: what is believed is well formed.
#include "base/bytes.h"
#include "base/check.h"
#include "proto/http_header.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace hydrant::proto;
  auto text = hydrant::as_text(std::as_bytes(std::span(data, size)));
  if (auto range = parse_content_range(text); range && range->range)
    HYDRANT_CHECK(!range->range->empty() && (!range->total || range->range->end <= *range->total), "range is wrong");
  for (const auto& challenge : parse_challenges(text)) {
    HYDRANT_CHECK(!challenge.scheme.empty(), "challenge without a scheme");
    for (const auto& [name, value] : challenge.params)
      HYDRANT_CHECK(!name.empty() && value.find_first_of("\r\n") == value.npos, "value holds a line break");
  }
  return 0;
}
