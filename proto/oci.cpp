#include "proto/oci.h"

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>

namespace hydrant::proto {

namespace {

using Json = nlohmann::json;

constexpr size_t kMaxText = 64 << 10;     // of one string field
constexpr size_t kMaxStrings = 16 << 10;  // of env, cmd and the like, and of annotations

std::string shown(std::string_view text) {
  std::string out;
  for (char c : text.substr(0, 200)) out += static_cast<unsigned char>(c) >= 0x20 && c != 0x7f ? c : '?';
  return out;
}

// Nested brackets cost some fifty times their length in memory, and no document of ours is deep.
bool too_deep(std::string_view body) {
  int depth = 0;
  bool in_string = false;
  for (size_t i = 0; i < body.size(); ++i) {
    char c = body[i];
    if (in_string) {
      if (c == '\\')
        ++i;
      else if (c == '"')
        in_string = false;
    } else if (c == '"') {
      in_string = true;
    } else if (c == '{' || c == '[') {
      if (++depth > 64) return true;
    } else if (c == '}' || c == ']') {
      --depth;
    }
  }
  return false;
}

Result<Json> parse_object(std::string_view body, const char* what) {
  if (body.size() > kMaxDocument) return fail(Code::kCorrupt, std::string(what) + " is larger than 4 MiB");
  if (too_deep(body)) return fail(Code::kCorrupt, std::string(what) + " is nested too deep");
  Json json = Json::parse(body, nullptr, false);
  if (json.is_discarded() || !json.is_object())
    return fail(Code::kCorrupt, std::string(what) + " is not a JSON object");
  return json;
}

// The field as a string; empty when it is missing, null, or not a string.
std::string text_field(const Json& json, const char* name) {
  auto found = json.find(name);
  if (found == json.end() || !found->is_string()) return {};
  const auto& text = found->get_ref<const std::string&>();
  return text.size() <= kMaxText ? text : std::string();
}

const Json* object_field(const Json& json, const char* name) {
  auto found = json.find(name);
  return found != json.end() && found->is_object() ? &*found : nullptr;
}

// Nothing when the field is missing or null; kCorrupt when it is something else than an array.
Result<const Json*> array_field(const Json& json, const char* name, size_t limit) {
  auto found = json.find(name);
  if (found == json.end() || found->is_null()) return nullptr;
  if (!found->is_array()) return fail(Code::kCorrupt, std::string(name) + " is not an array");
  if (found->size() > limit)
    return fail(Code::kUnsupported, std::string(name) + " has more than " + std::to_string(limit) + " entries");
  return &*found;
}

std::map<std::string, std::string> annotations_of(const Json& json) {
  std::map<std::string, std::string> out;
  if (const Json* object = object_field(json, "annotations"))
    for (const auto& [key, value] : object->items())
      if (value.is_string() && out.size() < kMaxStrings) out.emplace(key, value.get_ref<const std::string&>());
  return out;
}

Platform platform_of(const Json& json) {
  return {text_field(json, "os"), text_field(json, "architecture"), text_field(json, "variant")};
}

Result<Descriptor> descriptor_of(const Json& json) {
  if (!json.is_object()) return fail(Code::kCorrupt, "descriptor is not an object");
  Descriptor out;
  out.media_type = text_field(json, "mediaType");
  auto digest_text = text_field(json, "digest");
  auto digest = Digest::parse(digest_text);
  if (!digest || digest_text.size() != 71) {
    if (!digest && digest.error().code == Code::kUnsupported) return fail(digest.error());
    return fail(Code::kCorrupt, "descriptor digest '" + shown(digest_text) + "' is malformed");
  }
  out.digest = *digest;
  auto size = json.find("size");
  if (size == json.end() || !size->is_number_unsigned() || size->get<uint64_t>() > INT64_MAX)
    return fail(Code::kCorrupt, "descriptor " + digest_text + " has no valid size");
  out.size = size->get<uint64_t>();
  out.annotations = annotations_of(json);
  out.artifact_type = text_field(json, "artifactType");
  if (const Json* platform = object_field(json, "platform")) out.platform = platform_of(*platform);
  return out;
}

Result<std::vector<Descriptor>> descriptors_of(const Json& json, const char* name, size_t limit) {
  std::vector<Descriptor> out;
  HYDRANT_TRY(const Json* array, array_field(json, name, limit));
  if (!array) return out;
  for (size_t i = 0; i < array->size(); ++i) {
    auto descriptor = descriptor_of((*array)[i]);
    if (!descriptor) return fail(std::move(descriptor.error()).in(std::string(name) + "[" + std::to_string(i) + "]"));
    out.push_back(std::move(*descriptor));
  }
  return out;
}

Result<std::vector<std::string>> strings_of(const Json& json, const char* name) {
  std::vector<std::string> out;
  HYDRANT_TRY(const Json* array, array_field(json, name, kMaxStrings));
  if (!array) return out;
  for (const Json& item : *array) {
    if (!item.is_string()) return fail(Code::kCorrupt, std::string(name) + " holds something else than strings");
    out.push_back(item.get<std::string>());
  }
  return out;
}

Result<ImageIndex> index_of(const Json& json) {
  ImageIndex out;
  HYDRANT_TRY(out.manifests, descriptors_of(json, "manifests", kMaxManifests));
  out.annotations = annotations_of(json);
  return out;
}

Result<ImageManifest> manifest_of(const Json& json, std::string_view media_type) {
  ImageManifest out;
  out.media_type = media_type;
  auto config = json.find("config");
  if (config == json.end()) return fail(Code::kCorrupt, "manifest has no config");
  auto decoded = descriptor_of(*config);
  if (!decoded) return fail(std::move(decoded.error()).in("config"));
  out.config = std::move(*decoded);
  HYDRANT_TRY(out.layers, descriptors_of(json, "layers", kMaxLayers));
  out.annotations = annotations_of(json);
  out.artifact_type = text_field(json, "artifactType");
  if (const Json* subject = object_field(json, "subject")) {
    auto descriptor = descriptor_of(*subject);
    if (!descriptor) return fail(std::move(descriptor.error()).in("subject"));
    out.subject = std::move(*descriptor);
  }
  return out;
}

bool is_index_type(std::string_view type) { return type == media::kOciIndex || type == media::kDockerIndex; }
bool is_manifest_type(std::string_view type) { return type == media::kOciManifest || type == media::kDockerManifest; }

std::string go_architecture(std::string_view name) {
  if (name == "x86_64" || name == "x86-64") return "amd64";
  if (name == "aarch64") return "arm64";
  if (name == "i386" || name == "i686") return "386";
  return std::string(name);
}

// "v7" → 7; 0 when there is no variant, -1 when it is not of that form.
int variant_number(std::string_view variant) {
  if (variant.empty()) return 0;
  if (variant.size() != 2 || variant[0] != 'v' || variant[1] < '1' || variant[1] > '9') return -1;
  return variant[1] - '0';
}

// How well an entry serves the machine: higher is better, nothing when it does not run there.
std::optional<int> suitability(const Platform& entry, const Platform& wanted) {
  if (entry.os != wanted.os || go_architecture(entry.architecture) != go_architecture(wanted.architecture))
    return std::nullopt;
  if (entry.variant == wanted.variant) return 100;
  if (wanted.variant.empty())
    return 50 - std::max(0, variant_number(entry.variant));  // the one that asks for the least
  int have = variant_number(wanted.variant), needs = variant_number(entry.variant);
  if (have < 0 || needs < 0 || needs > have) return std::nullopt;
  return needs;
}

struct LayerType {
  std::string_view media_type;
  LayerFormat format;
};
constexpr auto kLayerTypes = std::to_array<LayerType>({
    {"application/vnd.oci.image.layer.v1.tar", LayerFormat::kTar},
    {"application/vnd.oci.image.layer.v1.tar+gzip", LayerFormat::kTarGzip},
    {"application/vnd.oci.image.layer.v1.tar+zstd", LayerFormat::kTarZstd},
    {"application/vnd.oci.image.layer.nondistributable.v1.tar", LayerFormat::kTar},
    {"application/vnd.oci.image.layer.nondistributable.v1.tar+gzip", LayerFormat::kTarGzip},
    {"application/vnd.oci.image.layer.nondistributable.v1.tar+zstd", LayerFormat::kTarZstd},
    {"application/vnd.docker.image.rootfs.diff.tar", LayerFormat::kTar},
    {"application/vnd.docker.image.rootfs.diff.tar.gzip", LayerFormat::kTarGzip},
    {"application/vnd.docker.image.rootfs.diff.tar.zstd", LayerFormat::kTarZstd},
    {"application/vnd.docker.image.rootfs.foreign.diff.tar", LayerFormat::kTar},
    {"application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", LayerFormat::kTarGzip},
    {"application/vnd.erofs.layer.v1", LayerFormat::kErofs},
    {"application/vnd.erofs.layer.v1+zstd", LayerFormat::kErofs},
    {"application/vnd.erofs", LayerFormat::kErofs},
    {"application/vnd.erofs+zstd", LayerFormat::kErofs},
    {"application/vnd.erofs.chunk-index.v1", LayerFormat::kErofsChunkIndex},
});

// What a config media type other than an image's stands for, in words.
std::string artifact_name(const ImageManifest& manifest) {
  const std::string& config = manifest.config.media_type;
  if (config == "application/vnd.cncf.helm.config.v1+json") return "a Helm chart";
  if (config.starts_with("application/vnd.wasm.config")) return "a WebAssembly module";
  if (config.starts_with("application/vnd.docker.plugin")) return "a Docker plugin";
  if (!manifest.artifact_type.empty()) return "an artifact of type " + shown(manifest.artifact_type);
  return "an artifact with config type " + (config.empty() ? "(none)" : shown(config));
}

}  // namespace

std::string Platform::text() const { return os + "/" + architecture + (variant.empty() ? "" : "/" + variant); }

Result<Platform> Platform::parse(std::string_view text) {
  auto wrong = [&] {
    return fail(Code::kInvalid, "platform '" + shown(text) + "' is not OS/ARCHITECTURE[/VARIANT], as linux/amd64");
  };
  std::array<std::string, 3> part;
  size_t count = 0;
  for (std::string_view rest = text;;) {
    auto slash = rest.find('/');
    auto word = rest.substr(0, slash);
    if (count == part.size() || word.empty() || word.size() > 32) return wrong();
    for (char c : word)
      if (!std::isalnum(static_cast<unsigned char>(c)) && c != '_' && c != '.' && c != '-') return wrong();
    part[count++] = word;
    if (slash == rest.npos) break;
    rest.remove_prefix(slash + 1);
  }
  if (count < 2) return wrong();
  return Platform{part[0], go_architecture(part[1]), part[2]};
}

Platform Platform::native() {
#if defined(__x86_64__)
  return {"linux", "amd64", ""};
#elif defined(__aarch64__)
  return {"linux", "arm64", ""};
#elif defined(__riscv)
  return {"linux", "riscv64", ""};
#else
#error "give this architecture its Go name"
#endif
}

Result<std::variant<ImageIndex, ImageManifest>> decode_manifest(std::string_view body, std::string_view media_type) {
  HYDRANT_TRY(Json json, parse_object(body, "manifest"));
  // The registry's word first, then the document's own, then its shape: older documents name no type.
  std::string type(media_type.substr(0, media_type.find(';')));
  if (!is_index_type(type) && !is_manifest_type(type)) {
    auto own = text_field(json, "mediaType");
    if (!own.empty()) type = own;
  }
  auto version = json.find("schemaVersion");
  if (version != json.end() && version->is_number_integer() && version->get<int64_t>() == 1)
    return fail(Code::kUnsupported, "manifest is of Docker's schema 1, which is obsolete; push the image again");
  if (!is_index_type(type) && !is_manifest_type(type)) {
    if (json.contains("manifests"))
      type = media::kOciIndex;
    else if (json.contains("config") && json.contains("layers"))
      type = media::kOciManifest;
    else
      return fail(Code::kUnsupported, "neither an image manifest nor an index, but '" + shown(type) + "'");
  }
  // One body must not mean two things to two readers.
  if (json.contains("manifests") && json.contains("layers"))
    return fail(Code::kCorrupt, "manifest has both layers and manifests");
  if (is_index_type(type)) {
    HYDRANT_TRY(ImageIndex index, index_of(json));
    return index;
  }
  HYDRANT_TRY(ImageManifest manifest, manifest_of(json, type));
  return manifest;
}

Result<ImageConfig> decode_config(std::string_view body) {
  HYDRANT_TRY(Json json, parse_object(body, "image config"));
  ImageConfig out;
  out.platform = platform_of(json);
  const Json* ids = nullptr;
  if (const Json* rootfs = object_field(json, "rootfs")) {
    HYDRANT_TRY(ids, array_field(*rootfs, "diff_ids", kMaxLayers));
  }
  if (ids) {
    for (const Json& id : *ids) {
      if (!id.is_string()) return fail(Code::kCorrupt, "image config: diff_ids holds something else than strings");
      const auto& text = id.get_ref<const std::string&>();
      auto digest = Digest::parse(text);
      if (!digest || text.size() != 71)
        return fail(Code::kCorrupt, "image config: diff_id '" + shown(text) + "' is malformed");
      out.diff_ids.push_back(*digest);
    }
  }
  if (const Json* config = object_field(json, "config")) {
    HYDRANT_TRY(out.env, strings_of(*config, "Env"));
    HYDRANT_TRY(out.entrypoint, strings_of(*config, "Entrypoint"));
    HYDRANT_TRY(out.cmd, strings_of(*config, "Cmd"));
    out.user = text_field(*config, "User");
    out.working_dir = text_field(*config, "WorkingDir");
  }
  return out;
}

Result<Descriptor> choose_platform(const ImageIndex& index, const Platform& wanted) {
  const Descriptor* best = nullptr;
  int best_score = -1;
  std::string there;
  for (const auto& entry : index.manifests) {
    if (!entry.platform) continue;
    if (entry.platform->os != "unknown" && there.size() < 300)
      there += (there.empty() ? "" : ", ") + shown(entry.platform->text());
    auto score = suitability(*entry.platform, wanted);
    if (score && *score > best_score) {
      best = &entry;
      best_score = *score;
    }
  }
  if (best) return *best;
  if (index.manifests.size() == 1 && !index.manifests[0].platform) return index.manifests[0];
  return fail(Code::kNotFound,
              "no image for " + wanted.text() +
                  (there.empty() ? std::string("; the index names no platform") : "; there are " + there));
}

Result<> check_is_image(const ImageManifest& manifest) {
  const std::string& config = manifest.config.media_type;
  // Some old builders leave the type out; such a manifest with layers of a file system is an image all the same.
  if (config != media::kOciConfig && config != media::kDockerConfig && config != "application/octet-stream" &&
      !config.empty())
    return fail(Code::kUnsupported, "this is " + artifact_name(manifest) + ", not a container image");
  if (!manifest.artifact_type.empty() && manifest.artifact_type != media::kOciConfig)
    return fail(Code::kUnsupported, "this is " + artifact_name(manifest) + ", not a container image");
  for (size_t i = 0; i < manifest.layers.size(); ++i) {
    auto format = layer_format(manifest.layers[i].media_type);
    if (!format) return fail(std::move(format.error()).in("layer " + std::to_string(i)));
  }
  return {};
}

Result<> settle_diff_ids(const ImageManifest& manifest, ImageConfig& config) {
  const auto& layers = manifest.layers;
  auto& ids = config.diff_ids;
  const bool listed = ids.size() == layers.size();
  const auto mismatch = fail(Code::kCorrupt, "manifest has " + std::to_string(layers.size()) + " layers, config has " +
                                                 std::to_string(ids.size()) + " diff_ids");
  if (!listed && !ids.empty()) return mismatch;
  ids.resize(layers.size());
  for (size_t i = 0; i < layers.size(); ++i) {
    const auto format = layer_format(layers[i].media_type);
    const bool erofs = format && (*format == LayerFormat::kErofs || *format == LayerFormat::kErofsChunkIndex);
    if (erofs) {
      auto annotated = layers[i].annotations.find("org.erofs.uncompressed-digest");
      if (annotated != layers[i].annotations.end()) {
        auto digest = Digest::parse(annotated->second);
        if (!digest)
          return fail(Code::kCorrupt, "layer " + layers[i].digest.text() + ": '" + shown(annotated->second) +
                                          "' is no uncompressed digest");
        ids[i] = *digest;
        continue;
      }
    }
    if (listed) continue;
    if (!erofs || layers[i].media_type.ends_with("+zstd")) return mismatch;
    ids[i] = layers[i].digest;
  }
  return {};
}

Result<LayerFormat> layer_format(std::string_view media_type) {
  for (const auto& known : kLayerTypes)
    if (known.media_type == media_type) return known.format;
  if (media_type.ends_with("+encrypted"))
    return fail(Code::kUnsupported, "layer type '" + shown(media_type) + "' is encrypted, which cannot be read");
  return fail(Code::kUnsupported, "unknown layer type '" + shown(media_type) + "'");
}

Result<> check_bytes(const Descriptor& descriptor, Bytes bytes) {
  if (bytes.size() != descriptor.size)
    return fail(Code::kCorrupt, descriptor.digest.text() + " has " + std::to_string(bytes.size()) +
                                    " bytes instead of " + std::to_string(descriptor.size));
  if (sha256(bytes) != descriptor.digest)
    return fail(Code::kCorrupt, "bytes do not match their digest " + descriptor.digest.text());
  return {};
}

std::string registry_errors(std::string_view body) {
  auto json = parse_object(body, "answer");
  if (!json) return {};
  auto array = array_field(*json, "errors", 100);
  if (!array || !*array) return {};
  std::string out;
  for (const Json& item : **array) {
    if (!item.is_object() || out.size() > 300) continue;
    auto code = text_field(item, "code"), message = text_field(item, "message");
    if (code.empty() && message.empty()) continue;
    if (!out.empty()) out += "; ";
    out += code + (code.empty() || message.empty() ? "" : ": ") + message;
  }
  // Cut at a character, not within one.
  if (out.size() > 300) {
    out.resize(300);
    while (!out.empty() && (static_cast<unsigned char>(out.back()) & 0xc0) == 0x80) out.pop_back();
    if (!out.empty() && (static_cast<unsigned char>(out.back()) & 0x80)) out.pop_back();
  }
  for (char& c : out)
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) c = ' ';
  return out;
}

}  // namespace hydrant::proto
