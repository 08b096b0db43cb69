// Where the file data of an EROFS image goes on its layer's device.
#pragma once

#include <vector>

#include "base/error.h"
#include "image/erofs/reader.h"
#include "image/index/layer_index.h"

namespace hydrant::image {

// Turns the pieces' places in the image into places on the device, and yields its rows: what no file is made of has no
// place, each stretch stands on blocks of its own, files that share data share rows. "tar" is the image.
// kUnsupported: two files share a part of a block.
Result<std::vector<LayoutRow>> place_erofs(ErofsTable& table);

}  // namespace hydrant::image
