// SOURCE parsing: no crash, and the canonical text is a fixed point.
#include "base/bytes.h"
#include "base/check.h"
#include "proto/reference.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace hydrant::proto;
  auto parsed = SourceReference::parse(hydrant::as_text(std::as_bytes(std::span(data, size))));
  if (!parsed) return 0;
  auto again = SourceReference::parse(parsed->text());
  HYDRANT_CHECK(again && again->text() == parsed->text(), "text() is not canonical");
  parsed->display();
  is_loopback_host(parsed->image.registry);
  return 0;
}
