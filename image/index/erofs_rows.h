// Where the file data of an EROFS image goes on its layer's device.
#pragma once

#include <vector>

#include "base/error.h"
#include "image/erofs/reader.h"
#include "image/index/layer_index.h"

namespace hydrant::image {

// Turns the pieces' places in the image into places on the device, and yields its rows: what no file is made of has no
// place, each stretch stands on blocks of its own, files that share data share rows. "tar" is the image, and behind it
// what its compressed files decode to, one behind the other: theirs are the last rows, in the table's order.
// kUnsupported: two files share a part of a block, or they decode to more than 128 TiB.
Result<std::vector<LayoutRow>> place_erofs(ErofsTable& table);

}  // namespace hydrant::image
