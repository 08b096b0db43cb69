// Fetches a layer's table of contents and makes its index.
#pragma once

#include <functional>
#include <stop_token>

#include "base/clock.h"
#include "base/error.h"
#include "image/toc/toc_layer.h"
#include "source/source.h"

namespace hydrant::fetch {

// One request where the manifest tells the table's place or the guess at the blob's end holds it all, else two or
// three. kUnsupported and kCorrupt: the layer cannot be read by a table; other errors are the blob's. `arrived` is told
// stored bytes.
Result<image::BuiltLayer> read_toc(source::Blob& blob, const image::TocReference& toc,
                                   const image::LayerExpectation& expected, Deadline deadline, std::stop_token stop,
                                   const std::function<void(uint64_t)>& arrived);

}  // namespace hydrant::fetch
