#include "fetch/read_toc.h"

#include "image/toc/toc_footer.h"

namespace hydrant::fetch {

Result<image::BuiltLayer> read_toc(source::Blob& blob, const image::TocReference& toc,
                                   const image::LayerExpectation& expected, Deadline deadline, std::stop_token stop,
                                   const std::function<void(uint64_t)>& arrived) {
  auto read = [&](ByteRange range) -> Result<Buffer> {
    Buffer bytes;
    if (range.empty()) return bytes;
    bytes.reserve(range.size());
    HYDRANT_TRY_VOID(blob.read({range, deadline, stop}, [&](Bytes piece) {
      arrived(piece.size());
      append(bytes, piece);
      return Result<>();
    }));
    return bytes;
  };
  Buffer tail;
  auto place = toc.place;
  if (!place) {
    HYDRANT_TRY(tail, read(image::first_toc_read(blob.size())));
    HYDRANT_TRY(place, image::decode_toc_footer(toc.kind, tail, blob.size()));
  }
  if (place->stored.end > blob.size())
    return fail(Code::kCorrupt, "the manifest puts the table of contents outside the layer");
  if (place->stored.size() > image::kMaxTocStored)
    return fail(Code::kUnsupported,
                "table of contents of " + std::to_string(place->stored.size() >> 20) + " MiB, compressed");

  // What stands in front of the guess, then the part of it that is the table.
  const uint64_t known = blob.size() - tail.size();
  HYDRANT_TRY(auto stored, read({place->stored.begin, std::min(place->stored.end, known)}));
  if (place->stored.end > known) {
    const uint64_t from = std::max(place->stored.begin, known);
    append(stored, Bytes(tail).subspan(from - known, place->stored.end - from));
  }
  return image::build_toc_index(toc, *place, stored, expected);
}

}  // namespace hydrant::fetch
