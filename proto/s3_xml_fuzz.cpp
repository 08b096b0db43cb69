#include "base/bytes.h"
#include "proto/s3_xml.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  std::string_view text(reinterpret_cast<const char*>(data), size);
  hydrant::proto::decode_s3_error(text);
  hydrant::proto::xml_text(text, "Expiration");
  if (auto listing = hydrant::proto::decode_s3_listing(text))
    for (const auto& object : listing->objects)
      if (object.key.empty()) __builtin_trap();
  return 0;
}
