// Makes windows small: most bytes of a window are never referred to.
#pragma once

#include "image/gzip/inflater.h"

namespace hydrant::image {

// The window with every byte zeroed that the span does not refer to; unchanged when that cannot be proven by decoding
// the probe with it.
Buffer trim_window(const CheckpointData& checkpoint);

}  // namespace hydrant::image
