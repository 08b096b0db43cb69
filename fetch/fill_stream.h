// One request to the origin, decoded while it arrives.
#pragma once

#include <functional>

#include "base/clock.h"
#include "base/error.h"
#include "image/layout.h"
#include "source/source.h"

namespace hydrant::fetch {

// Reads fill.stored in one go and hands out the granules of fill.device in order, to be proven by the sink (the
// layout's decoder()). `fill` is what layout.plan() made. `arrived` hears of every stored byte, and of none (0) when
// the origin pauses. Errors are those of the blob, the layout and the sink; bytes that do not match are kCorrupt. Holds
// a few granules' bytes, however long the fill is.
Result<> stream_fill(const image::Layout& layout, const image::Fill& fill, source::Blob& blob, Deadline deadline,
                     std::stop_token stop, const std::function<Result<>(uint64_t)>& arrived,
                     const image::DeviceSink& sink);

}  // namespace hydrant::fetch
