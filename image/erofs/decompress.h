// Decoders of EROFS's physical clusters, one call each.
#pragma once

#include "base/bytes.h"
#include "base/error.h"
#include "proto/erofs_layout.h"

namespace hydrant::image {

// Fills `out` with the first bytes of what `stored` decodes to. `whole`: with all of it. kCorrupt when it yields fewer,
// or, of an LZ4 cluster that is to be whole, more.
Result<> decompress(proto::erofs::Algorithm algorithm, Bytes stored, MutableBytes out, bool whole);

}  // namespace hydrant::image
