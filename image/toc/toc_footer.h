// The last bytes of a stored layer, which tell where its table of contents stands.
#pragma once

#include "base/bytes.h"
#include "base/error.h"
#include "image/toc/toc_reference.h"

namespace hydrant::image {

// A tail of at least this many bytes holds every kind of footer.
inline constexpr uint64_t kLongestFooter = 72;

// `tail`: the last bytes of a blob of `blob_size`, at least kLongestFooter of them or all. kUnsupported when there is
// no footer of that kind, or one that leads elsewhere (a table outside the blob, of another type); kCorrupt when its
// numbers cannot be. Proves nothing: what stands at the place must have the digest that the manifest tells.
Result<TocPlace> decode_toc_footer(TocKind kind, Bytes tail, uint64_t blob_size);

}  // namespace hydrant::image
