// What stands beside an image in its registry: the indexes of its layers, as an artifact whose subject is the image's
// manifest (OCI 1.1 referrers). docs/formats/index-artifact.md.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "proto/oci.h"

namespace hydrant::proto {

namespace media {
inline constexpr std::string_view kIndexArtifact = "application/vnd.hydrant.index.v1+json";
inline constexpr std::string_view kLayerIndex = "application/vnd.hydrant.layer-index.v1";
inline constexpr std::string_view kPrefetchList = "application/vnd.hydrant.prefetch.v1+json";
inline constexpr std::string_view kEmpty = "application/vnd.oci.empty.v1+json";
}  // namespace media

// Of every artifact's config.
inline constexpr std::string_view kEmptyConfig = "{}";

struct IndexArtifact {
  struct Layer {
    Digest layer;    // of the stored blob that it is the index of
    Digest diff_id;  // of its tar
    Digest root;     // Merkle root of the device
    Digest index;    // of the index, a blob of the same repository
    uint64_t size = 0;
    bool operator==(const Layer&) const = default;
  };
  struct Blob {
    Digest digest;
    uint64_t size = 0;
    bool operator==(const Blob&) const = default;
  };

  Descriptor subject;  // type, digest and size of the image's manifest
  std::vector<Layer> layers;
  std::optional<Blob> prefetch;  // its prefetch list
  std::string generator;
  std::string signature;  // of signed_text(), in hex; empty: unsigned

  const Layer* of(const Digest& layer) const;
};

// A manifest of media type kOciManifest.
std::string encode(const IndexArtifact& artifact);
// kCorrupt when `manifest` is no such artifact, says something twice, or leaves out what binds an index to its layer.
// Blobs of types that this version does not know are ignored.
Result<IndexArtifact> decode_index_artifact(const ImageManifest& manifest);

// What a signature covers: the subject and everything that is used of the artifact.
std::string signed_text(const IndexArtifact& artifact);

// The same list with `entry` in it, once; everything else stays as it was, whatever it is. kCorrupt when `index` is no
// image index. An empty text is an empty list.
Result<std::string> with_referrer(std::string_view index, const Descriptor& entry);

// Of an image's manifest, the digest of the artifact that its layers' indexes are named by: as strong as the image.
inline constexpr char kIndexAnnotation[] = "vnd.hydrant.index.digest";

// The manifest with that annotation; everything else stays as it was, whatever it is. kCorrupt when `manifest` is none.
Result<std::string> with_index(std::string_view manifest, const Digest& artifact);

// An image index with another manifest, of `size` bytes, in the place of `original`; everything else stays as it was,
// whatever it is. kCorrupt when `index` is none, or does not have it.
Result<std::string> with_manifest(std::string_view index, const Digest& original, const Digest& copy, uint64_t size);

// Where registries without the referrers API have the list: a tag.
std::string referrers_tag(const Digest& subject);

}  // namespace hydrant::proto
