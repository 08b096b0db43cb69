// How a layer of an image is read: whole once, and by an index of its spans from then on, by the table of contents that
// it carries, or by an index that stands beside the image. Each way has its own index, and makes a device of its own.
#pragma once

#include <optional>
#include <string>

#include "base/digest.h"
#include "image/erofs/chunk_index.h"
#include "image/index/layer_index.h"
#include "image/toc/toc_reference.h"
#include "proto/object_id.h"

namespace hydrant::fetch {

// The cookie key of a layer's device that a table of contents describes. Named by what proves its bytes, never by the
// diff_id: nobody has compared that, and another image's layer of the same diff_id must not get these bytes.
inline std::string toc_device_id(const Digest& layer, const Digest& toc) {
  return proto::device_object_id(image::kLayoutVersion, "toc\n" + layer.text() + "\n" + toc.text());
}

// The same of a layer that is read by an index that somebody pushed: named by that index, for what it says need not be
// what the diff_id's own device holds.
inline std::string pushed_device_id(const Digest& layer, const Digest& index) {
  return proto::device_object_id(image::kLayoutVersion, "pushed\n" + layer.text() + "\n" + index.text());
}

// The index that a layer's own store had beside the image, ours or of another make; or that the layer carries.
struct PushedIndex {
  Digest digest;       // of the index
  bool late = false;   // nobody vouches for it: it is proven while it is used
  std::string signer;  // who vouches for it: the key that has signed it, or kByManifest; empty: nobody
};
inline constexpr char kByManifest[] = "the image's manifest";

struct LayerReading {
  Digest layer;  // of the stored blob
  uint64_t size = 0;
  Digest diff_id;
  std::optional<image::TocReference> toc;               // when it is read by its table
  std::optional<PushedIndex> pushed{};                  // when it is read by such an index
  std::optional<image::ErofsChunkIndexPlace> chunks{};  // where an EROFS layer's chunk index is, if it has one
  bool tarball = false;  // no layer, but a version of a remote file; `layer` is its device's key

  std::string device() const {
    if (tarball) return layer.hex();
    if (pushed) return pushed_device_id(layer, pushed->digest);
    return toc ? toc_device_id(layer, toc->digest) : proto::device_object_id(image::kLayoutVersion, diff_id.text());
  }
};

}  // namespace hydrant::fetch
