// A blob's tail, and the annotations of a manifest: what they say lies inside the blob.
#include <cstdlib>

#include "image/toc/toc_footer.h"

using namespace hydrant;
using namespace hydrant::image;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  Cursor in(std::as_bytes(std::span(data, size)));
  const auto which = in.take<uint8_t>();
  if (which % 3 == 2) {
    const std::string prefix = "io.containers.zstd-chunked.";
    auto toc = toc_reference({{prefix + "manifest-checksum", sha256(in.rest()).text()},
                              {prefix + "manifest-position", std::string(as_text(in.rest()))}});
    if (toc && toc->place->stored.empty()) std::abort();
    return 0;
  }
  const Bytes tail = in.rest();
  for (const uint64_t blob : {uint64_t(tail.size()), tail.size() + uint64_t(1'000'000)}) {
    auto place = decode_toc_footer(which % 3 ? TocKind::kEstargz : TocKind::kZstdChunked, tail, blob);
    if (place && (place->stored.empty() || place->stored.end > blob)) std::abort();
  }
  return 0;
}
