// Image documents: the first byte chooses the decoder.
#include "base/bytes.h"
#include "proto/oci.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace hydrant::proto;
  if (!size) return 0;
  auto body = hydrant::as_text(std::as_bytes(std::span(data + 1, size - 1)));
  switch (data[0] % 4) {
    case 0: {
      auto decoded = decode_manifest(body, "");
      if (!decoded) break;
      if (auto* index = std::get_if<ImageIndex>(&*decoded))
        (void)choose_platform(*index, Platform::native());
      else
        (void)check_is_image(std::get<ImageManifest>(*decoded));
      break;
    }
    case 1: (void)decode_config(body); break;
    case 2: registry_errors(body); break;
    default: (void)Platform::parse(body);
  }
  return 0;
}
