// How the readers of EROFS images get at one.
#pragma once

#include <cstdint>
#include <functional>

#include "base/bytes.h"
#include "base/error.h"

namespace hydrant::image {

// Bytes of an image: fills `out` from `offset`, which lies inside the image with all of it, or fails.
using ReadImage = std::function<Result<>(uint64_t offset, MutableBytes out)>;

}  // namespace hydrant::image
