#include "base/check.h"
#include "proto/erofs_layout.h"

using namespace hydrant;
namespace erofs = hydrant::proto::erofs;

// What is pointed to lies in the image, whatever the image says.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  Bytes image = std::as_bytes(std::span(data, size));
  if (auto outline = erofs::decode_outline(image, size + 4096)) {
    HYDRANT_CHECK(outline->root.begin <= outline->root.end && outline->root.end <= size + 4096, "root in the image");
    HYDRANT_CHECK(outline->device_table.end <= size + 4096, "device table in the image");
    HYDRANT_CHECK(outline->devices() <= 65535, "as many devices as the field can say");
  }
  if (auto tags = erofs::decode_device_tags(image))
    for (auto& tag : *tags) HYDRANT_CHECK(!tag.empty() && tag.size() <= 64, "a tag has its length");
  return 0;
}
