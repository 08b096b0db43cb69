// A layer's index out of the zTOC that SOCI made of it. Source: the format's FlatBuffers schema and the description of
// its checkpoints, as the SOCI snapshotter documents them (versions 0.9 and 1.x).
#pragma once

#include "base/bytes.h"
#include "base/error.h"
#include "image/index/layer_builder.h"

namespace hydrant::image {

// The index proves each span by the zTOC's digest of its stored bytes, and has no leaves and no diff_id: it is as good
// as whoever vouches for the zTOC. kCorrupt: it contradicts itself or `expected`. kUnsupported: the layer cannot be
// read by it (sparse files, of which it does not tell where the holes are; spans too wide; no spans).
Result<BuiltLayer> build_ztoc_index(Bytes ztoc, const LayerExpectation& expected);

}  // namespace hydrant::image
