// Indexes of other makes, read instead of streaming: chunk indexes of EROFS layers, and SOCI's zTOCs. What they say is
// turned into an index of ours, which is used for a device named by the foreign one (layer_reading.h).
#pragma once

#include <optional>
#include <stop_token>
#include <string>
#include <vector>

#include "fetch/image_in_store.h"
#include "fetch/layer_reading.h"
#include "fetch/trust.h"

namespace hydrant::fetch {

// Lives for one prepare, no longer than its image; not thread-safe.
class ForeignIndexes {
 public:
  explicit ForeignIndexes(const ImageInStore& image) : in_(image) {}

  // Sets `pushed` of those readings that the image's own manifest binds an index for, by its digest: a layer's chunk
  // index, or SOCI's index (version 2). Asks nobody for what stands in our own store. Whatever fails is logged, and the
  // layer read as if there were none.
  void find_bound(const std::vector<LayerReading*>& readings, std::stop_token stop);

  // The same by a SOCI index (version 1) that stands beside the image. Nobody vouches for those: only where such are
  // wanted, and to be proven while they are used.
  void find_beside(const std::vector<LayerReading*>& readings, Trust trust, std::stop_token stop);

 private:
  struct Soci;
  Result<Soci> soci_index(const Digest& digest, Deadline deadline);
  Result<Digest> soci_beside(Deadline deadline);
  void take_soci(const std::vector<LayerReading*>& readings, const Soci& soci, bool late, std::stop_token stop);
  Result<> take_ztoc(const LayerReading& reading, const proto::Descriptor& ztoc, std::stop_token stop);
  Result<> take_chunks(const LayerReading& reading, std::stop_token stop);
  Result<bool> here(const LayerReading& reading, const Digest& foreign);
  Result<> keep(const LayerReading& reading, const Digest& foreign, Bytes index);

  const ImageInStore& in_;
};

}  // namespace hydrant::fetch
