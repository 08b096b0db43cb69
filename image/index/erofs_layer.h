// The index of an EROFS layer out of its chunk index: some chunks of the layer instead of all of it.
#pragma once

#include <functional>

#include "image/erofs/chunk_index.h"
#include "image/index/layer_builder.h"

namespace hydrant::image {

// Fetches stored bytes of the layer; nothing need be proven.
using ReadStored = std::function<Result<Buffer>(ByteRange stored)>;

// Reads the image's inodes and directories from the chunks that hold them, each proven by its digest, and makes an
// index that proves the rest so. kCorrupt: a chunk does not match its digest, or what read_erofs says; kUnsupported: as
// read_erofs; other errors are the reader's.
Result<BuiltLayer> build_erofs_index(const ErofsChunkIndex& chunks, const LayerExpectation& expected,
                                     const ReadStored& read);

}  // namespace hydrant::image
