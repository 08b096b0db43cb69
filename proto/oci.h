// OCI and Docker image documents: index, manifest, config (image-spec 1.1; Docker image manifest version 2, schema 2).
// Decoding is bounded by the size of the body, which callers limit to kMaxDocument; unknown fields are ignored.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "base/bytes.h"
#include "base/digest.h"
#include "base/error.h"

namespace hydrant::proto {

inline constexpr size_t kMaxDocument = 4 << 20;  // bytes of an index, manifest or config
inline constexpr size_t kMaxLayers = 1024;
inline constexpr size_t kMaxManifests = 4096;  // entries of an index

namespace media {
inline constexpr std::string_view kOciIndex = "application/vnd.oci.image.index.v1+json";
inline constexpr std::string_view kOciManifest = "application/vnd.oci.image.manifest.v1+json";
inline constexpr std::string_view kOciConfig = "application/vnd.oci.image.config.v1+json";
inline constexpr std::string_view kDockerIndex = "application/vnd.docker.distribution.manifest.list.v2+json";
inline constexpr std::string_view kDockerManifest = "application/vnd.docker.distribution.manifest.v2+json";
inline constexpr std::string_view kDockerConfig = "application/vnd.docker.container.image.v1+json";
}  // namespace media

// "linux/amd64", "linux/arm64/v8". Names are Go's (amd64, arm64, 386, …).
struct Platform {
  std::string os;
  std::string architecture;
  std::string variant;  // may be empty

  std::string text() const;
  bool operator==(const Platform&) const = default;

  // "os/architecture[/variant]"; "x86_64" and "aarch64" are taken for their Go names.
  static Result<Platform> parse(std::string_view text);
  static Platform native();  // of this build
};

struct Descriptor {
  std::string media_type;
  Digest digest;
  uint64_t size = 0;
  std::map<std::string, std::string> annotations;
  std::optional<Platform> platform;
  std::string artifact_type;
};

struct ImageIndex {
  std::vector<Descriptor> manifests;
  std::map<std::string, std::string> annotations;
};

struct ImageManifest {
  std::string media_type;  // its own, after looking at the content when nobody said it
  Descriptor config;
  std::vector<Descriptor> layers;  // bottom first
  std::map<std::string, std::string> annotations;
  std::string artifact_type;
  std::optional<Descriptor> subject;
};

struct ImageConfig {
  Platform platform;
  std::vector<Digest> diff_ids;  // of the uncompressed layers, bottom first; empty when the config has none
  std::vector<std::string> env, entrypoint, cmd;
  std::string user, working_dir;
};

enum class LayerFormat : uint8_t {
  kTar,
  kTarGzip,
  kTarZstd,
  kErofs,            // a file system image, plain or in zstd
  kErofsChunkIndex,  // no layer, but how to read the one in front of it in the middle
};

// `media_type` is what the store said; when it is empty or generic, the document's own mediaType or its shape decides.
// kUnsupported: a document that is neither (a schema 1 manifest is named); kCorrupt: no JSON, or fields that are wrong.
Result<std::variant<ImageIndex, ImageManifest>> decode_manifest(std::string_view body, std::string_view media_type);

Result<ImageConfig> decode_config(std::string_view body);

// The entry for `wanted`. An empty variant takes any; a wanted arm64 takes "v8" and none alike; for arm an older
// variant serves a newer machine, newest first. Attestations and other entries without a platform are no candidates
// unless the index has just one entry. kNotFound lists what there is.
Result<Descriptor> choose_platform(const ImageIndex& index, const Platform& wanted);

// kUnsupported when the manifest is something else than a container image (a Helm chart, a signature, an artifact) or
// has a layer of an unknown type: the message names it.
Result<> check_is_image(const ImageManifest& manifest);

// As many diff_ids as layers. Those of EROFS layers stand in the manifest, too, or are their digests, as the EROFS
// image layer specification has it; a config without any is completed. kCorrupt when one is missing.
Result<> settle_diff_ids(const ImageManifest& manifest, ImageConfig& config);

// By media type alone. Registries carry mislabelled layers, so readers look at the first bytes too.
Result<LayerFormat> layer_format(std::string_view media_type);

// Size and SHA-256 as the descriptor says, else kCorrupt.
Result<> check_bytes(const Descriptor& descriptor, Bytes bytes);

// The `errors` array of a registry's answer as one line ("MANIFEST_UNKNOWN: manifest unknown"), at most 300 characters
// without control characters; empty when the body has none.
std::string registry_errors(std::string_view body);

}  // namespace hydrant::proto
