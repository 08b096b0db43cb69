// How a layer of an image is read: whole once, and by an index of its spans from then on, or by the table of contents
// that it carries. Each way has its own index, and makes a device of its own.
#pragma once

#include <optional>
#include <string>

#include "base/digest.h"
#include "image/index/layer_index.h"
#include "image/toc/toc_reference.h"
#include "proto/object_id.h"

namespace hydrant::fetch {

// The cookie key of a layer's device that a table of contents describes. Named by what proves its bytes, never by the
// diff_id: nobody has compared that, and another image's layer of the same diff_id must not get these bytes.
inline std::string toc_device_id(const Digest& layer, const Digest& toc) {
  return proto::device_object_id(image::kLayoutVersion, "toc\n" + layer.text() + "\n" + toc.text());
}

struct LayerReading {
  Digest layer;  // of the stored blob
  uint64_t size = 0;
  Digest diff_id;
  std::optional<image::TocReference> toc;  // when it is read by its table

  std::string device() const {
    return toc ? toc_device_id(layer, toc->digest) : proto::device_object_id(image::kLayoutVersion, diff_id.text());
  }
};

}  // namespace hydrant::fetch
