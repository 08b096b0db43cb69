// Writes the metadata image of a merged tree: an EROFS file system whose regular files all lie on extra devices, one
// for each layer. Readable by Linux 5.16 and later; needs no feature newer than chunk-based files and the device table.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "base/digest.h"
#include "base/error.h"
#include "image/tree/merge.h"

namespace hydrant::image {

struct DeviceInfo {
  std::string tag;    // what the device slot is labelled with: the object's 64 hex characters
  uint64_t size = 0;  // bytes, a multiple of 4096, at most 16 TiB
};

struct ErofsOptions {
  Digest image_id;         // the file system's UUID is derived from it
  int64_t build_time = 0;  // seconds; inodes with this time (and small ids) take half the space
  // Larger metadata is kUnsupported. A few header bytes of a tar can ask for a sparse file with billions of chunks.
  uint64_t max_bytes = uint64_t{1} << 30;
  // Holes that data follows are chunks of zeros in the image itself. For EROFS over fscache: Linux 6.1 takes a hole to
  // go on to the end of what it reads at once, and shows zeros in place of the data (docs/decisions/012).
  bool fill_holes = false;
};

struct ErofsImage {
  Buffer bytes;                       // a multiple of 4096
  std::vector<uint32_t> used_layers;  // layer number of each device slot, in slot order: what the mount must give
  uint64_t dropped_xattrs = 0;        // whose prefix EROFS cannot store
};

// `layer_devices[i]` is the device of layer i of the tree. Devices that no live byte lies on get no slot. Data pieces
// must start at offsets that are equal modulo 4096 in file and device, and own the blocks they touch: bytes of those
// blocks outside the piece are zeros on the device.
// The same input gives the same bytes. kUnsupported names the file that a limit of the format refuses; kCorrupt when a
// data piece contradicts its file or its device.
Result<ErofsImage> write_erofs(const Tree& tree, std::span<const DeviceInfo> layer_devices,
                               const ErofsOptions& options);

}  // namespace hydrant::image
