// Any bytes as a chunk index, and as the annotations that lead to one.
#include "base/check.h"
#include "image/erofs/chunk_index.h"

using namespace hydrant;
using namespace hydrant::image;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const Bytes bytes = std::as_bytes(std::span(data, size));
  constexpr uint64_t kStored = 1 << 20;
  if (auto index = decode_erofs_chunk_index(bytes, kStored)) {
    uint64_t end = 0;
    for (const auto& chunk : index->chunks) {
      HYDRANT_CHECK(chunk.plain.begin == end && !chunk.plain.empty(), "no gaps");
      HYDRANT_CHECK(!chunk.stored.empty() && chunk.stored.end <= kStored, "inside the data");
      end = chunk.plain.end;
    }
    HYDRANT_CHECK(end == index->image_size, "the whole image");
  }
  auto place = erofs_chunk_index_place({{"org.erofs.chunk-index.range", std::string(as_text(bytes))},
                                        {"org.erofs.chunk-index.digest", sha256(bytes).text()}},
                                       size % 2, kStored);
  if (place) HYDRANT_CHECK(place->stored.begin <= place->stored.end && place->stored.end <= kStored, "in the blob");
  return 0;
}
