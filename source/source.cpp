#include "source/source.h"

namespace hydrant::source {

Result<Buffer> read_all(Blob& blob, const ReadRequest& request) {
  Buffer out;
  out.reserve(request.range.size());
  HYDRANT_TRY_VOID(blob.read(request, [&](Bytes piece) -> Result<> {
    if (piece.size() > request.range.size() - out.size())
      return fail(Code::kCorrupt, blob.describe() + ": delivers more than was asked for");
    append(out, piece);
    return {};
  }));
  if (out.size() != request.range.size())
    return fail(Code::kCorrupt, blob.describe() + ": delivers less than was asked for");
  return out;
}

}  // namespace hydrant::source
