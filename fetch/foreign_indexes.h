// Indexes of other makes, read instead of streaming: chunk indexes of EROFS layers, and SOCI's zTOCs. What they say is
// turned into an index of ours, which is used for a device named by the foreign one (layer_reading.h).
#pragma once

#include <optional>
#include <stop_token>
#include <string>
#include <vector>

#include "fetch/catalogue.h"
#include "fetch/layer_reading.h"
#include "fetch/origins.h"
#include "fetch/paths.h"
#include "fetch/trust.h"
#include "source/open.h"

namespace hydrant::fetch {

// One image in its store. Lives for one prepare; not thread-safe.
class ForeignIndexes {
 public:
  // All outlive it. `store_name` distinguishes stores in the catalogue.
  ForeignIndexes(const Paths& paths, Catalogue& catalogue, Origins& origins, source::ImageStore& store,
                 std::string store_name, const source::ResolvedImage& image)
      : paths_(paths),
        catalogue_(catalogue),
        origins_(origins),
        store_(store),
        store_name_(std::move(store_name)),
        image_(image) {}

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

  const Paths& paths_;
  Catalogue& catalogue_;
  Origins& origins_;
  source::ImageStore& store_;
  const std::string store_name_;
  const source::ResolvedImage& image_;
};

}  // namespace hydrant::fetch
