// Indexes that stand beside an image in its registry: found, checked and kept here, or made known to others. What an
// index of a stranger's says is used for the devices that it names alone, never for the layer's own (layer_reading.h).
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <stop_token>
#include <string>
#include <vector>

#include "fetch/image_in_store.h"
#include "fetch/layer_reading.h"
#include "fetch/trust.h"
#include "proto/index_artifact.h"

namespace hydrant::fetch {

// Lives for one prepare, no longer than its image; not thread-safe.
class PushedIndexes {
 public:
  explicit PushedIndexes(const ImageInStore& image) : in_(image) {}

  // Sets `pushed` of those readings that the image's manifest names an index for, which then stands in our own store;
  // asks nobody when it does already. Whatever fails is logged, and the layer read as if there were none.
  void find_bound(const std::vector<LayerReading*>& readings, std::stop_token stop);

  // The same by what stands beside the image.
  void find(const std::vector<LayerReading*>& readings, Trust trust, std::stop_token stop);

  // Pushes the indexes that stand in our store under the layers' digests, and the image's prefetch list if there is
  // one, as an artifact that is listed beside the image. `key`: PEM of the private key that signs them, or empty.
  // Yields the artifact's digest. kUnsupported when no layer has an index that serves.
  Result<Digest> push(const std::vector<LayerReading>& readings, const std::string& key);

  struct Converted {
    Digest artifact;
    Digest manifest;
  };
  // The same, but the artifact is named by a copy of the image's manifest, and listed nowhere. The copy is put under
  // `tag`; or, if the image was chosen from an index, a copy of that, which names it in the image's place.
  Result<Converted> convert(const std::vector<LayerReading>& readings, const std::string& key, const std::string& tag);

 private:
  struct Found;
  struct Artifact {
    proto::Descriptor self;
    std::string body;
  };
  Result<Artifact> put_artifact(const std::vector<LayerReading>& readings, const std::string& key, Deadline deadline);
  Result<std::optional<Found>> bound() const;
  void take_all(const std::vector<LayerReading*>& readings, const Found& found, std::stop_token stop);
  std::map<std::string, std::string> trusted_keys() const;
  std::optional<Found> accept(source::StoredManifest manifest, Trust trust) const;
  std::optional<Found> known(Trust trust) const;
  Result<std::optional<Found>> ask(Trust trust);
  Result<> take(const LayerReading& reading, const Found& found, std::stop_token stop);
  Result<> keep_prefetch_list(const Found& found, std::stop_token stop);
  void try_prefetch_list(const Found& found, std::stop_token stop);
  bool usable(const LayerReading& reading, const Found& found) const;
  std::string tag() const { return "index of " + in_.image.manifest_digest.text(); }

  const ImageInStore& in_;
};

}  // namespace hydrant::fetch
