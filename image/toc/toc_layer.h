// A layer's index out of its table of contents: a few bytes of the layer instead of all of them.
#pragma once

#include "base/bytes.h"
#include "base/error.h"
#include "image/index/layer_builder.h"
#include "image/toc/toc_reference.h"

namespace hydrant::image {

// Larger tables are kUnsupported; they stand in memory while they are read.
inline constexpr uint64_t kMaxTocStored = 64 << 20, kMaxTocPlain = 256 << 20;

// What is worth fetching first of a blob whose table's place is not known: its end, with the footer and most tables.
ByteRange first_toc_read(uint64_t blob_size);

// `stored`: the bytes at `place`, which need not be trusted. kCorrupt when they are not the table that `toc` names, or
// contradict themselves; kUnsupported when the layer cannot be read by them alone (toc_table.h). `expected` names the
// layer; its diff_id is not looked at: what binds the table to the image is its digest.
Result<BuiltLayer> build_toc_index(const TocReference& toc, const TocPlace& place, Bytes stored,
                                   const LayerExpectation& expected);

}  // namespace hydrant::image
