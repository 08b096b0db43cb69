#include "proto/index_artifact.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "proto/admin.h"

namespace hydrant::proto {

namespace {

constexpr char kLayerDigest[] = "vnd.hydrant.layer.digest";
constexpr char kDiffId[] = "vnd.hydrant.layer.diff-id";
constexpr char kMerkleRoot[] = "vnd.hydrant.merkle-root";
constexpr char kGenerator[] = "vnd.hydrant.generator";
constexpr char kSignature[] = "vnd.hydrant.signature";
constexpr size_t kMaxSignature = 4096;  // hex digits

tl::unexpected<Error> bad(const std::string& what) { return fail(Code::kCorrupt, "index artifact: " + what); }

Json descriptor(std::string_view type, const Digest& digest, uint64_t size) {
  return {{"mediaType", type}, {"digest", digest.text()}, {"size", size}};
}

std::string annotation(const std::map<std::string, std::string>& annotations, const char* name) {
  auto found = annotations.find(name);
  return found == annotations.end() ? std::string() : found->second;
}

Result<Digest> digest_in(const Descriptor& blob, const char* name) {
  const std::string text = annotation(blob.annotations, name);
  auto digest = Digest::parse(text);
  if (!digest || text != digest->text() || digest->is_zero()) return bad(std::string("a layer without ") + name);
  return digest;
}

}  // namespace

const IndexArtifact::Layer* IndexArtifact::of(const Digest& layer) const {
  auto found = std::find_if(layers.begin(), layers.end(), [&](const Layer& each) { return each.layer == layer; });
  return found == layers.end() ? nullptr : &*found;
}

std::string encode(const IndexArtifact& artifact) {
  Json json = {{"schemaVersion", 2},
               {"mediaType", media::kOciManifest},
               {"artifactType", media::kIndexArtifact},
               {"config", descriptor(media::kEmpty, sha256(as_bytes(kEmptyConfig)), kEmptyConfig.size())},
               {"layers", Json::array()},
               {"subject", descriptor(artifact.subject.media_type, artifact.subject.digest, artifact.subject.size)},
               {"annotations", {{kGenerator, artifact.generator}}}};
  for (const auto& layer : artifact.layers) {
    Json blob = descriptor(media::kLayerIndex, layer.index, layer.size);
    blob["annotations"] = {
        {kLayerDigest, layer.layer.text()}, {kDiffId, layer.diff_id.text()}, {kMerkleRoot, layer.root.text()}};
    json["layers"].push_back(std::move(blob));
  }
  if (artifact.prefetch)
    json["layers"].push_back(descriptor(media::kPrefetchList, artifact.prefetch->digest, artifact.prefetch->size));
  if (!artifact.signature.empty()) json["annotations"][kSignature] = artifact.signature;
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

Result<IndexArtifact> decode_index_artifact(const ImageManifest& manifest) {
  if (manifest.artifact_type != media::kIndexArtifact) return bad("the artifact is of another type");
  if (!manifest.subject) return bad("it has no subject");
  IndexArtifact out;
  out.subject = *manifest.subject;
  for (const Descriptor& blob : manifest.layers) {
    if (blob.media_type == media::kLayerIndex) {
      IndexArtifact::Layer layer{.layer = {}, .diff_id = {}, .root = {}, .index = blob.digest, .size = blob.size};
      HYDRANT_TRY(layer.layer, digest_in(blob, kLayerDigest));
      HYDRANT_TRY(layer.diff_id, digest_in(blob, kDiffId));
      HYDRANT_TRY(layer.root, digest_in(blob, kMerkleRoot));
      if (out.of(layer.layer)) return bad("two indexes of layer " + layer.layer.text());
      out.layers.push_back(layer);
    } else if (blob.media_type == media::kPrefetchList) {
      if (out.prefetch) return bad("two prefetch lists");
      out.prefetch = {blob.digest, blob.size};
    }
  }
  out.generator = annotation(manifest.annotations, kGenerator);
  out.signature = annotation(manifest.annotations, kSignature);
  if (out.signature.size() > kMaxSignature) return bad("its signature is too long");
  return out;
}

std::string signed_text(const IndexArtifact& artifact) {
  std::string text = "hydrant index artifact 1\nsubject " + artifact.subject.digest.text() + "\n";
  for (const auto& layer : artifact.layers)
    text += "index " + layer.layer.text() + " " + layer.diff_id.text() + " " + layer.root.text() + " " +
            layer.index.text() + " " + std::to_string(layer.size) + "\n";
  if (artifact.prefetch)
    text += "prefetch " + artifact.prefetch->digest.text() + " " + std::to_string(artifact.prefetch->size) + "\n";
  return text;
}

Result<std::string> with_referrer(std::string_view index, const Descriptor& entry) {
  Json json = {{"schemaVersion", 2}, {"mediaType", media::kOciIndex}, {"manifests", Json::array()}};
  if (!index.empty()) {
    HYDRANT_TRY(json, parse_json(index, kMaxDocument));
    auto list = json.is_object() ? json.find("manifests") : json.end();
    if (!json.is_object() || list == json.end() || !list->is_array())
      return fail(Code::kCorrupt, "the list of referrers is no image index");
  }
  Json added = descriptor(entry.media_type, entry.digest, entry.size);
  if (!entry.artifact_type.empty()) added["artifactType"] = entry.artifact_type;
  Json kept = Json::array();
  for (auto& each : json["manifests"]) {
    auto digest = each.is_object() ? each.find("digest") : each.end();
    if (!each.is_object() || digest == each.end() || *digest != entry.digest.text()) kept.push_back(std::move(each));
  }
  kept.push_back(std::move(added));
  json["manifests"] = std::move(kept);
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

Result<std::string> with_index(std::string_view manifest, const Digest& artifact) {
  HYDRANT_TRY(Json json, parse_json(manifest, kMaxDocument));
  if (!json.is_object() || !json.contains("layers")) return fail(Code::kCorrupt, "not an image's manifest");
  Json& annotations = json["annotations"];
  if (annotations.is_null()) annotations = Json::object();
  if (!annotations.is_object()) return fail(Code::kCorrupt, "the manifest's annotations are none");
  annotations[kIndexAnnotation] = artifact.text();
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

Result<std::string> with_manifest(std::string_view index, const Digest& original, const Digest& copy, uint64_t size) {
  auto parsed = parse_json(index, kMaxDocument);
  if (!parsed || !parsed->is_object() || !parsed->contains("manifests") || !(*parsed)["manifests"].is_array())
    return fail(Code::kCorrupt, "not an image index");
  Json& json = *parsed;
  auto list = json.find("manifests");
  bool found = false;
  for (auto& each : *list) {
    if (!each.is_object() || each.value("digest", Json()) != original.text()) continue;
    each["digest"] = copy.text();
    each["size"] = size;
    found = true;
  }
  if (!found) return fail(Code::kCorrupt, "the image index does not name " + original.text());
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

std::string referrers_tag(const Digest& subject) { return "sha256-" + subject.hex(); }

}  // namespace hydrant::proto
