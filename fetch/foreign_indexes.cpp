#include "fetch/foreign_indexes.h"

#include <map>

#include "base/file.h"
#include "base/log.h"
#include "fetch/at_once.h"
#include "image/index/erofs_layer.h"
#include "image/soci/ztoc.h"

namespace hydrant::fetch {

namespace {

// As for indexes of our own (pushed_indexes.cpp): an image mounts without, too.
constexpr auto kAskDeadline = std::chrono::seconds(10);
constexpr auto kTakeDeadline = std::chrono::minutes(2);
constexpr size_t kMostAtOnce = 8;
constexpr uint64_t kMaxIndex = 256 << 20;

// What the SOCI snapshotter's documents call its index, and the annotations that lead from an image to it and from it
// to a layer.
constexpr std::string_view kSociV1 = "application/vnd.amazon.soci.index.v1+json";
constexpr std::string_view kSociV2 = "application/vnd.amazon.soci.index.v2+json";
constexpr char kSociOfImage[] = "com.amazon.soci.index-digest";
constexpr char kLayerOfZtoc[] = "com.amazon.soci.image-layer-digest";

image::LayerExpectation expectation(const LayerReading& reading) {
  image::LayerExpectation expected;
  expected.digest = reading.layer;
  expected.size = reading.size;
  return expected;
}

void passed_over(const LayerReading& reading, const Error& error) {
  log::warn("index.foreign", {{"layer", reading.layer.text()}, {"reason", error.what}});
}

}  // namespace

struct ForeignIndexes::Soci {
  std::map<Digest, proto::Descriptor> ztocs;  // by layer
};

// Whether the index that was made of it stands in our own store; kCorrupt when that was found to lie.
Result<bool> ForeignIndexes::here(const LayerReading& reading, const Digest& foreign) {
  const std::string device = pushed_device_id(reading.layer, foreign);
  HYDRANT_TRY_VOID(in_.origins.usable(device));
  return in_.origins.pushed_index(device, reading.layer, reading.size).has_value();
}

Result<> ForeignIndexes::keep(const LayerReading& reading, const Digest& foreign, Bytes index) {
  HYDRANT_TRY(auto name, Digest::parse(pushed_device_id(reading.layer, foreign)));
  HYDRANT_TRY_VOID(make_directories(in_.paths.index_directory(name)));
  return write_file_atomic(in_.paths.index(name), index);
}

Result<> ForeignIndexes::take_chunks(const LayerReading& reading, std::stop_token stop) {
  const auto& place = *reading.chunks;
  HYDRANT_TRY(const bool known, here(reading, place.digest));
  if (known) return {};
  const Deadline deadline = Deadline::after(kTakeDeadline);
  if (place.stored.size() > kMaxIndex) return fail(Code::kUnsupported, "the chunk index is larger than 256 MiB");
  HYDRANT_TRY(auto blob, in_.store.blob(reading.layer, reading.size, deadline));
  Buffer payload;
  if (place.apart) {
    HYDRANT_TRY(payload, source::read_proven(in_.store, place.digest, place.stored.size(), deadline, stop));
  } else {
    HYDRANT_TRY(payload, source::read_all(*blob, {place.stored, deadline, stop}));
    if (sha256(payload) != place.digest)
      return fail(Code::kCorrupt, "the chunk index does not have the digest that the manifest tells");
  }
  HYDRANT_TRY(const auto chunks, image::decode_erofs_chunk_index(payload, place.stored_end));
  HYDRANT_TRY(auto built, image::build_erofs_index(chunks, expectation(reading), [&](ByteRange stored) {
                return source::read_all(*blob, {stored, deadline, stop});
              }));
  log::info("layer.indexed", {{"layer", reading.layer.text()},
                              {"by", "chunk index"},
                              {"stored", reading.size},
                              {"device", built.ident.device_size},
                              {"index", built.index.size()},
                              {"files", built.files}});
  return keep(reading, place.digest, built.index);
}

Result<> ForeignIndexes::take_ztoc(const LayerReading& reading, const proto::Descriptor& ztoc, std::stop_token stop) {
  HYDRANT_TRY(const bool known, here(reading, ztoc.digest));
  if (known) return {};
  if (ztoc.size > kMaxIndex) return fail(Code::kUnsupported, "the zTOC is larger than 256 MiB");
  HYDRANT_TRY(auto bytes, source::read_proven(in_.store, ztoc.digest, ztoc.size, Deadline::after(kTakeDeadline), stop));
  HYDRANT_TRY(auto built, image::build_ztoc_index(bytes, expectation(reading)));
  log::info("layer.indexed", {{"layer", reading.layer.text()},
                              {"by", "SOCI"},
                              {"stored", reading.size},
                              {"device", built.ident.device_size},
                              {"index", built.index.size()},
                              {"files", built.files}});
  return keep(reading, ztoc.digest, built.index);
}

// Known documents are asked for once.
Result<ForeignIndexes::Soci> ForeignIndexes::soci_index(const Digest& digest, Deadline deadline) {
  std::string body;
  if (auto known = in_.catalogue.document(digest)) body = std::move(known->body);
  if (sha256(as_bytes(body)) != digest) {
    HYDRANT_TRY(auto stored, in_.store.manifest(digest.text(), deadline));
    body = std::move(stored.body);
    if (sha256(as_bytes(body)) != digest)
      return fail(Code::kCorrupt, "bytes do not match their digest " + digest.text());
    if (auto put = in_.catalogue.put_document(digest, proto::media::kOciManifest, body); !put)
      log::warn("catalogue.document", {{"reason", put.error().what}});
  }
  HYDRANT_TRY(auto decoded, proto::decode_manifest(body, proto::media::kOciManifest));
  const auto* manifest = std::get_if<proto::ImageManifest>(&decoded);
  const auto is_soci = [](std::string_view type) { return type == kSociV1 || type == kSociV2; };
  if (!manifest || !(is_soci(manifest->artifact_type) || is_soci(manifest->config.media_type)))
    return fail(Code::kCorrupt, digest.text() + " is no SOCI index");
  Soci soci;
  for (const auto& blob : manifest->layers) {
    auto layer = blob.annotations.find(kLayerOfZtoc);
    if (layer == blob.annotations.end()) continue;
    if (auto named = Digest::parse(layer->second)) soci.ztocs.emplace(*named, blob);
  }
  return soci;
}

void ForeignIndexes::take_soci(const std::vector<LayerReading*>& readings, const Soci& soci, bool late,
                               std::stop_token stop) {
  at_once(readings, kMostAtOnce, stop, [&](LayerReading* reading) {
    auto ztoc = soci.ztocs.find(reading->layer);
    if (ztoc == soci.ztocs.end()) return;  // small layers have none
    if (auto taken = take_ztoc(*reading, ztoc->second, stop); !taken) return passed_over(*reading, taken.error());
    reading->pushed = {ztoc->second.digest, late, late ? "" : kByManifest};
  });
}

void ForeignIndexes::find_bound(const std::vector<LayerReading*>& readings, std::stop_token stop) {
  at_once(readings, kMostAtOnce, stop, [&](LayerReading* reading) {
    if (!reading->chunks) return;
    if (auto taken = take_chunks(*reading, stop); !taken) return passed_over(*reading, taken.error());
    reading->pushed = {reading->chunks->digest, false, kByManifest};
  });
  auto named = in_.image.manifest.annotations.find(kSociOfImage);
  if (named == in_.image.manifest.annotations.end()) return;
  auto soci = [&]() -> Result<Soci> {
    HYDRANT_TRY(auto digest, Digest::parse(named->second));
    return soci_index(digest, Deadline::after(kAskDeadline));
  }();
  if (!soci) return log::warn("index.lookup", {{"store", in_.store.describe()}, {"reason", soci.error().what}});
  std::vector<LayerReading*> rest;
  for (LayerReading* reading : readings)
    if (!reading->pushed) rest.push_back(reading);
  take_soci(rest, *soci, /*late=*/false, stop);
}

// The one that was used the last time, or the newest, which is listed last.
Result<Digest> ForeignIndexes::soci_beside(Deadline deadline) {
  const std::string tag = "SOCI index of " + in_.image.manifest_digest.text();
  if (auto known = in_.catalogue.tag(in_.store_name, tag)) return *known;
  HYDRANT_TRY(auto entries, in_.store.referrers(in_.image.manifest_digest, kSociV1, deadline));
  if (entries.empty()) return fail(Code::kNotFound, "no SOCI index");
  const Digest digest = entries.back().digest;
  if (auto put = in_.catalogue.put_tag(in_.store_name, tag, digest); !put)
    log::warn("catalogue.tag", {{"reason", put.error().what}});
  return digest;
}

void ForeignIndexes::find_beside(const std::vector<LayerReading*>& readings, Trust trust, std::stop_token stop) {
  if (trust == Trust::kStrict) return;
  const Deadline deadline = Deadline::after(kAskDeadline);
  auto soci = [&]() -> Result<Soci> {
    HYDRANT_TRY(auto digest, soci_beside(deadline));
    return soci_index(digest, deadline);
  }();
  if (!soci) {
    if (soci.error().code != Code::kNotFound)
      log::warn("index.lookup", {{"store", in_.store.describe()}, {"reason", soci.error().what}});
    return;
  }
  take_soci(readings, *soci, trust == Trust::kLate, stop);
}

}  // namespace hydrant::fetch
