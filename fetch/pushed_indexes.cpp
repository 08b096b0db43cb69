#include "fetch/pushed_indexes.h"

#include <algorithm>
#include <filesystem>

#include "base/file.h"
#include "base/log.h"
#include "base/signature.h"
#include "base/version.h"
#include "fetch/at_once.h"
#include "image/index/layer_builder.h"
#include "proto/prefetch_list.h"
#include "source/file/file_blob.h"

namespace hydrant::fetch {

namespace {

// An image mounts without an index, too: nobody waits long for the question whether there is one.
constexpr auto kAskDeadline = std::chrono::seconds(10);
constexpr auto kTakeDeadline = std::chrono::minutes(2);
constexpr auto kPushDeadline = std::chrono::minutes(10);
constexpr size_t kMostArtifacts = 8;  // looked into
constexpr size_t kMostAtOnce = 8;     // indexes fetched
constexpr size_t kMaxKey = 64 << 10;
// An index is some hundredth of its layer; this much it may be whatever the layer's size.
constexpr uint64_t kMaxIndex = 256 << 20;

Result<Buffer> read_blob(source::ImageStore& store, const Digest& digest, uint64_t size, std::stop_token stop) {
  return source::read_proven(store, digest, size, Deadline::after(kTakeDeadline), stop);
}

// Of a blob that is to be pushed.
Result<Digest> digest_of(source::Blob& blob, Deadline deadline) {
  Sha256 sha;
  HYDRANT_TRY_VOID(blob.read({{0, blob.size()}, deadline, {}}, [&](Bytes piece) {
    sha.update(piece);
    return Result<>();
  }));
  return sha.finish();
}

image::LayerExpectation expectation(const LayerReading& reading) {
  image::LayerExpectation expected;
  expected.digest = reading.layer;
  expected.size = reading.size;
  expected.diff_id = reading.diff_id;
  return expected;
}

}  // namespace

struct PushedIndexes::Found {
  source::StoredManifest manifest;
  proto::IndexArtifact artifact;
  std::string signer;  // name of the key that has signed it; empty: nobody that we trust
  bool late = false;   // to be proven while it is used
};

std::map<std::string, std::string> PushedIndexes::trusted_keys() const {
  std::map<std::string, std::string> keys;  // by name
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(in_.paths.trusted_keys(), error)) {
    if (entry.path().extension() != ".pem") continue;
    auto key = read_file(entry.path(), kMaxKey);
    if (key)
      keys[entry.path().filename()] = *std::move(key);
    else
      log::warn("trust.key", {{"reason", key.error().what}});
  }
  return keys;
}

// Nothing when it is no index of this image, or nobody's whom we trust.
std::optional<PushedIndexes::Found> PushedIndexes::accept(source::StoredManifest manifest, Trust trust) const {
  auto artifact = [&]() -> Result<proto::IndexArtifact> {
    HYDRANT_TRY(auto document, proto::decode_manifest(manifest.body, proto::media::kOciManifest));
    if (!std::holds_alternative<proto::ImageManifest>(document)) return fail(Code::kCorrupt, "no manifest");
    HYDRANT_TRY(auto decoded, proto::decode_index_artifact(std::get<proto::ImageManifest>(document)));
    if (decoded.subject.digest != in_.image.manifest_digest) return fail(Code::kCorrupt, "it is another image's");
    return decoded;
  }();
  const std::string name = manifest.digest.text();
  if (!artifact) {
    log::warn("index.artifact", {{"artifact", name}, {"reason", artifact.error().what}});
    return std::nullopt;
  }
  Found found{std::move(manifest), *std::move(artifact), {}, trust == Trust::kLate};
  if (!found.artifact.signature.empty()) {
    for (const auto& [signer, key] : trusted_keys()) {
      auto verified = verify(key, proto::signed_text(found.artifact), found.artifact.signature);
      if (!verified && verified.error().code != Code::kDenied)
        log::warn("trust.key", {{"key", signer}, {"reason", verified.error().what}});
      if (!verified) continue;
      found.signer = signer;
      found.late = false;
      return found;
    }
  }
  if (trust != Trust::kStrict) return found;
  log::info("index.untrusted", {{"artifact", name},
                                {"signed", found.artifact.signature.empty() ? "no" : "by nobody who is trusted here"}});
  return std::nullopt;
}

// What was used the last time, judged as if it had just come.
std::optional<PushedIndexes::Found> PushedIndexes::known(Trust trust) const {
  auto digest = in_.catalogue.tag(in_.store_name, tag());
  if (!digest) return std::nullopt;
  auto document = in_.catalogue.document(*digest);
  if (!document || sha256(as_bytes(document->body)) != *digest) return std::nullopt;
  return accept({document->media_type, std::move(document->body), *digest}, trust);
}

Result<std::optional<PushedIndexes::Found>> PushedIndexes::ask(Trust trust) {
  const Deadline deadline = Deadline::after(kAskDeadline);
  HYDRANT_TRY(auto entries, in_.store.referrers(in_.image.manifest_digest, proto::media::kIndexArtifact, deadline));
  std::optional<Found> best;
  // The newest is listed last.
  for (size_t i = 0; i < std::min(entries.size(), kMostArtifacts); ++i) {
    const auto& entry = entries[entries.size() - 1 - i];
    auto manifest = in_.store.manifest(entry.digest.text(), deadline);
    if (!manifest) {
      log::warn("index.artifact", {{"artifact", entry.digest.text()}, {"reason", manifest.error().what}});
      continue;
    }
    auto found = accept(*std::move(manifest), trust);
    if (found && !found->signer.empty()) return found;
    if (found && !best) best = std::move(found);
  }
  return best;
}

// Whether the index stands in our own store.
bool PushedIndexes::usable(const LayerReading& reading, const Found& found) const {
  const auto* layer = found.artifact.of(reading.layer);
  if (!layer) return false;
  const std::string device = pushed_device_id(reading.layer, layer->index);
  if (!in_.origins.usable(device)) return false;
  auto index = in_.origins.pushed_index(device, reading.layer, reading.size);
  return index && (*index)->ident().diff_id == reading.diff_id;
}

Result<> PushedIndexes::take(const LayerReading& reading, const Found& found, std::stop_token stop) {
  const auto& layer = *found.artifact.of(reading.layer);
  HYDRANT_TRY_VOID(in_.origins.usable(pushed_device_id(reading.layer, layer.index)));
  if (layer.size > kMaxIndex) return fail(Code::kUnsupported, "the index is larger than 256 MiB");
  HYDRANT_TRY(auto bytes, read_blob(in_.store, layer.index, layer.size, stop));
  HYDRANT_TRY(auto index, image::LayerIndex::load(bytes, expectation(reading)));
  const auto& ident = index->ident();
  if (index->by_chunks() || index->merkle_root() != layer.root || layer.diff_id != reading.diff_id)
    return fail(Code::kCorrupt, "the index is not what the artifact says it is");
  if (!index->lazy()) return fail(Code::kUnsupported, "its layer cannot be read in the middle");
  // The proof compares it with one that is made here.
  if (found.late && ident.granule != image::LayerBuilderOptions{}.granule)
    return fail(Code::kUnsupported, "its granule is not the one that is used here");
  HYDRANT_TRY(auto name, Digest::parse(pushed_device_id(reading.layer, layer.index)));
  HYDRANT_TRY_VOID(make_directories(in_.paths.index_directory(name)));
  return write_file_atomic(in_.paths.index(name), bytes);
}

// Names files, so that the worst it can do is to have the wrong ones fetched. It is the subject's list, which a
// converted image is a copy of.
Result<> PushedIndexes::keep_prefetch_list(const Found& found, std::stop_token stop) {
  const auto path = in_.paths.prefetch_list(in_.image.manifest_digest);
  if (!found.artifact.prefetch || found.artifact.prefetch->size > proto::kMaxPrefetchText ||
      std::filesystem::exists(path))
    return {};
  HYDRANT_TRY(auto bytes, read_blob(in_.store, found.artifact.prefetch->digest, found.artifact.prefetch->size, stop));
  HYDRANT_TRY(auto list, proto::decode_prefetch_list(as_text(bytes)));
  if (list.subject != found.artifact.subject.digest.text())
    return fail(Code::kCorrupt, "the prefetch list is another image's");
  list.subject = in_.image.manifest_digest.text();
  HYDRANT_TRY_VOID(make_directories(in_.paths.prefetch_directory()));
  return write_file_atomic(path, as_bytes(proto::encode(list)));
}

void PushedIndexes::try_prefetch_list(const Found& found, std::stop_token stop) {
  if (auto kept = keep_prefetch_list(found, stop); !kept)
    log::warn("prefetch.pushed", {{"image", in_.image.manifest_digest.text()}, {"reason", kept.error().what}});
}

void PushedIndexes::take_all(const std::vector<LayerReading*>& readings, const Found& found, std::stop_token stop) {
  std::vector<LayerReading*> wanted;
  for (LayerReading* reading : readings)
    if (found.artifact.of(reading->layer)) wanted.push_back(reading);
  at_once(wanted, kMostAtOnce, stop, [&](LayerReading* reading) {
    if (!usable(*reading, found)) {
      auto taken = take(*reading, found, stop);
      if (!taken) return log::warn("index.pushed", {{"layer", reading->layer.text()}, {"reason", taken.error().what}});
    }
    reading->pushed = {found.artifact.of(reading->layer)->index, found.late, found.signer};
  });
}

// The artifact that the manifest names. Its subject is the image that this one is a copy of.
Result<std::optional<PushedIndexes::Found>> PushedIndexes::bound() const {
  auto named = in_.image.manifest.annotations.find(proto::kIndexAnnotation);
  if (named == in_.image.manifest.annotations.end()) return std::optional<Found>();
  HYDRANT_TRY(const auto digest, Digest::parse(named->second));
  source::StoredManifest manifest{std::string(proto::media::kOciManifest), {}, digest};
  if (auto known = in_.catalogue.document(digest)) manifest.body = std::move(known->body);
  if (sha256(as_bytes(manifest.body)) != digest) {
    HYDRANT_TRY(manifest, in_.store.manifest(digest.text(), Deadline::after(kAskDeadline)));
    if (manifest.digest != digest) return fail(Code::kCorrupt, "bytes do not match their digest " + digest.text());
    if (auto put = in_.catalogue.put_document(digest, proto::media::kOciManifest, manifest.body); !put)
      log::warn("catalogue.document", {{"reason", put.error().what}});
  }
  HYDRANT_TRY(auto document, proto::decode_manifest(manifest.body, proto::media::kOciManifest));
  if (!std::holds_alternative<proto::ImageManifest>(document)) return fail(Code::kCorrupt, "no manifest");
  HYDRANT_TRY(auto artifact, proto::decode_index_artifact(std::get<proto::ImageManifest>(document)));
  return std::optional(Found{std::move(manifest), std::move(artifact), kByManifest, false});
}

void PushedIndexes::find_bound(const std::vector<LayerReading*>& readings, std::stop_token stop) {
  auto found = bound();
  if (!found) return log::warn("index.lookup", {{"store", in_.store.describe()}, {"reason", found.error().what}});
  if (!*found) return;
  take_all(readings, **found, stop);
  try_prefetch_list(**found, stop);
}

void PushedIndexes::find(const std::vector<LayerReading*>& readings, Trust trust, std::stop_token stop) {
  // Without a key there is nobody whose index could be used.
  if (trust == Trust::kStrict && trusted_keys().empty()) return;
  auto found = known(trust);
  const bool all_here = found && std::all_of(readings.begin(), readings.end(), [&](const LayerReading* reading) {
                          return !found->artifact.of(reading->layer) || usable(*reading, *found);
                        });
  if (!all_here) {
    auto asked = ask(trust);
    if (!asked) return log::warn("index.lookup", {{"store", in_.store.describe()}, {"reason", asked.error().what}});
    if (!*asked) return;
    found = **std::move(asked);
  }

  take_all(readings, *found, stop);
  if (all_here) return;

  try_prefetch_list(*found, stop);
  const auto& manifest = found->manifest;
  auto put = in_.catalogue.put_document(manifest.digest, manifest.media_type, manifest.body);
  if (put) put = in_.catalogue.put_tag(in_.store_name, tag(), manifest.digest);
  if (!put) log::warn("catalogue.tag", {{"reason", put.error().what}});
}

// Everything but the artifact's manifest is in the store then.
Result<PushedIndexes::Artifact> PushedIndexes::put_artifact(const std::vector<LayerReading>& readings,
                                                            const std::string& key, Deadline deadline) {
  proto::IndexArtifact artifact;
  artifact.subject.media_type = in_.image.manifest.media_type;
  artifact.subject.digest = in_.image.manifest_digest;
  artifact.subject.size = in_.image.manifest_body.size();
  artifact.generator = "hydrant " + std::string(kVersion);
  for (const LayerReading& reading : readings) {
    if (reading.toc || artifact.of(reading.layer)) continue;
    HYDRANT_TRY(auto index, in_.origins.index(reading.layer, reading.size));
    if (!index->lazy()) continue;
    HYDRANT_TRY(auto file, source::FileBlob::open(in_.paths.index(reading.layer), /*proven=*/true));
    if (file->size() > kMaxIndex) return fail(Code::kUnsupported, file->describe() + " is larger than 256 MiB");
    HYDRANT_TRY(const Digest digest, digest_of(*file, deadline));
    artifact.layers.push_back({reading.layer, reading.diff_id, index->merkle_root(), digest, file->size()});
    HYDRANT_TRY_VOID(in_.store.put_blob(digest, *file, deadline));
  }
  if (artifact.layers.empty())
    return fail(Code::kUnsupported,
                in_.store.describe() + ": no layer of the image is read by an index, so there is none to push");
  auto list = read_file(in_.paths.prefetch_list(in_.image.manifest_digest), proto::kMaxPrefetchText);
  if (list) {
    const Digest digest = sha256(as_bytes(*list));
    artifact.prefetch = {digest, list->size()};
    source::BytesBlob blob(*std::move(list), "prefetch list");
    HYDRANT_TRY_VOID(in_.store.put_blob(digest, blob, deadline));
  }
  if (!key.empty()) {
    HYDRANT_TRY(artifact.signature, sign(key, proto::signed_text(artifact)));
  }
  source::BytesBlob empty(std::string(proto::kEmptyConfig), "empty config");
  HYDRANT_TRY_VOID(in_.store.put_blob(sha256(as_bytes(proto::kEmptyConfig)), empty, deadline));

  Artifact made;
  made.body = proto::encode(artifact);
  made.self.media_type = proto::media::kOciManifest;
  made.self.digest = sha256(as_bytes(made.body));
  made.self.size = made.body.size();
  made.self.artifact_type = proto::media::kIndexArtifact;
  return made;
}

Result<Digest> PushedIndexes::push(const std::vector<LayerReading>& readings, const std::string& key) {
  const Deadline deadline = Deadline::after(kPushDeadline);
  HYDRANT_TRY(auto artifact, put_artifact(readings, key, deadline));
  const Digest digest = artifact.self.digest;
  HYDRANT_TRY_VOID(
      in_.store.put_referrer(in_.image.manifest_digest, artifact.self, std::move(artifact.body), deadline));
  log::info("index.pushed", {{"image", in_.image.manifest_digest.text()}, {"artifact", digest.text()}});
  return digest;
}

Result<PushedIndexes::Converted> PushedIndexes::convert(const std::vector<LayerReading>& readings,
                                                        const std::string& key, const std::string& tag) {
  const Deadline deadline = Deadline::after(kPushDeadline);
  HYDRANT_TRY(auto artifact, put_artifact(readings, key, deadline));
  Converted made{artifact.self.digest, {}};
  HYDRANT_TRY_VOID(
      in_.store.put_manifest(made.artifact.text(), artifact.self.media_type, std::move(artifact.body), deadline));
  HYDRANT_TRY(auto body, proto::with_index(in_.image.manifest_body, made.artifact));
  made.manifest = sha256(as_bytes(body));
  // The indexes above it, from the innermost outwards, name the copy in the original's place and else what they named.
  std::string media_type = in_.image.manifest.media_type;
  Digest original = in_.image.manifest_digest, copy = made.manifest;
  for (auto above = in_.image.above.rbegin(); above != in_.image.above.rend(); ++above) {
    HYDRANT_TRY(auto index, proto::with_manifest(above->body, original, copy, body.size()));
    HYDRANT_TRY_VOID(in_.store.put_manifest(copy.text(), media_type, std::move(body), deadline));
    body = std::move(index);
    media_type = above->media_type == proto::media::kDockerIndex ? proto::media::kDockerIndex : proto::media::kOciIndex;
    original = above->digest;
    copy = sha256(as_bytes(body));
  }
  HYDRANT_TRY_VOID(in_.store.put_manifest(tag, media_type, std::move(body), deadline));
  log::info("image.converted", {{"image", in_.image.manifest_digest.text()}, {"to", made.manifest.text()}});
  return made;
}

}  // namespace hydrant::fetch
