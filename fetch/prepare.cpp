#include "fetch/prepare.h"

#include <malloc.h>
#include <sys/stat.h>

#include <algorithm>
#include <map>
#include <numeric>
#include <unordered_map>

#include "base/file.h"
#include "base/log.h"
#include "base/signature.h"
#include "fetch/at_once.h"
#include "fetch/foreign_indexes.h"
#include "fetch/known_store.h"
#include "fetch/leaves.h"
#include "fetch/prepare_file.h"
#include "fetch/pushed_indexes.h"
#include "image/erofs/writer.h"
#include "image/tree/merge.h"
#include "proto/object_id.h"

namespace hydrant::fetch {

namespace {

// Goes up whenever the same layers would give another metadata image.
constexpr unsigned kMetadataVersion = 1;
// Less than a client waits for a sign of life, so that it hears the cause.
constexpr auto kResolveDeadline = std::chrono::seconds(30);
constexpr auto kProgressInterval = std::chrono::milliseconds(100);
constexpr size_t kMaxMetadata = 4ULL << 30;
constexpr size_t kMostLeavesAtOnce = 16;

bool exists(const std::string& path) {
  struct stat status;
  return ::stat(path.c_str(), &status) == 0;
}

// Most inodes of an image built in one go carry one time; EROFS stores those in half the space.
int64_t commonest_time(const image::Tree& tree) {
  std::unordered_map<int64_t, uint32_t> counts;
  for (const auto& inode : tree.inodes)
    if (inode.entry) ++counts[inode.entry->mtime];
  int64_t best = 0;
  uint32_t most = 0;
  for (const auto& [time, count] : counts)
    if (count > most || (count == most && time < best)) best = time, most = count;
  return best;
}

// Empty for a lazy layer.
std::string why_not_lazy(const image::LayerIndex& index) {
  if (index.lazy()) return {};
  if (index.decoded().size > 0)
    return "files are compressed inside its EROFS image (" + index.decoded().how + "), so it was read whole";
  return "its compression can be entered only every " + std::to_string(index.widest_span() >> 20) +
         " MiB, so it was read whole";
}

// What the metadata image is a function of.
std::string key_of(const std::vector<LayerReading>& readings, const PreparerOptions& options) {
  std::string text =
      "hydrant image " + std::to_string(kMetadataVersion) + " " + std::to_string(image::kLayoutVersion) + "\n";
  if (options.fill_holes) text += "holes filled\n";
  for (const LayerReading& layer : readings) {
    text += layer.layer.hex() + " ";
    if (layer.tarball)
      text += "tarball";
    else if (layer.pushed)
      text += "pushed " + layer.pushed->digest.hex();
    else
      text += layer.toc ? "toc " + layer.toc->digest.hex() : layer.diff_id.hex();
    text += "\n";
  }
  return sha256(as_bytes(text)).hex();
}

// Who vouches for the index; empty for one of our own.
std::string voucher(const LayerReading& reading) {
  if (!reading.pushed) return {};
  if (!reading.pushed->signer.empty()) return reading.pushed->signer;
  return reading.pushed->late ? "nobody yet: it is proven while it is used" : "nobody";
}

ObjectKind kind_of(const LayerReading& reading) {
  if (reading.tarball) return ObjectKind::kTarball;
  if (reading.pushed) return reading.pushed->late ? ObjectKind::kLateLayer : ObjectKind::kPushedLayer;
  return reading.toc ? ObjectKind::kTocLayer : ObjectKind::kLayer;
}

// What is no layer goes: chunk indexes, of the layer in front of them; yields those. kUnsupported: an EROFS layer that
// is more than a tree, by the role that the EROFS image layer specification has given it.
Result<std::map<Digest, image::ErofsChunkIndexPlace>> settle_layers(source::ResolvedImage& image) {
  auto& layers = image.manifest.layers;
  auto& diff_ids = image.config.diff_ids;
  std::map<Digest, image::ErofsChunkIndexPlace> chunk_indexes;  // by layer
  for (size_t i = layers.size(); i-- > 0;) {
    HYDRANT_TRY(auto format, proto::layer_format(layers[i].media_type));
    if (format == proto::LayerFormat::kErofsChunkIndex) {
      auto target = layers[i].annotations.find("org.erofs.chunk-index.target");
      if (i == 0 || (target != layers[i].annotations.end() && target->second != layers[i - 1].digest.text()))
        return fail(Code::kCorrupt, "chunk index " + layers[i].digest.text() + " does not follow its layer");
      chunk_indexes[layers[i - 1].digest] = {{0, layers[i].size}, layers[i - 1].size, layers[i].digest, true};
      layers.erase(layers.begin() + ptrdiff_t(i));
      diff_ids.erase(diff_ids.begin() + ptrdiff_t(i));
      continue;
    }
    auto role = layers[i].annotations.find("org.erofs.role");
    if (role != layers[i].annotations.end() && role->second != "overlay-lower")
      return fail(Code::kUnsupported, "layer " + layers[i].digest.text() + " has the role \"" + role->second +
                                          "\", which only holds data of another one; that cannot be mounted");
  }
  return chunk_indexes;
}

// The tag that a converted image gets. Layers are shared inside a repository, so it is the same one.
Result<std::string> tag_of(const proto::SourceReference& source, const std::string& to) {
  HYDRANT_TRY(auto reference, proto::SourceReference::parse(to));
  const auto& image = reference.image;
  if (reference.kind != proto::SourceKind::kRegistry || image.registry != source.image.registry ||
      image.repository != source.image.repository)
    return fail(Code::kUnsupported, to + ": is not in the repository of " + source.display() +
                                        ", whose layers the converted image shares; copy the image there first");
  if (image.tag.empty() || image.digest) return fail(Code::kInvalid, to + ": name a tag");
  return image.tag;
}

Result<> check_push(const proto::SourceReference& source, const proto::PrepareRequest& request) {
  if (!request.push && request.convert_to.empty()) return {};
  if (source.kind != proto::SourceKind::kRegistry || !request.index_only)
    return fail(Code::kInvalid, source.display() + ": indexes are pushed to registries alone");
  if (!request.convert_to.empty()) {
    HYDRANT_TRY(auto tag, tag_of(source, request.convert_to));
  }
  if (request.sign_key.empty()) return {};
  auto signature = sign(request.sign_key, "");
  if (!signature) return fail(std::move(signature).error().in("the key to sign with"));
  return {};
}

Result<proto::SourceReference> parse_source(const proto::PrepareRequest& request) {
  HYDRANT_TRY(auto reference, proto::SourceReference::parse(request.source));
  const char* form = reference.names_image() ? "image" : "file";
  const bool tree_of_file = (request.as == "erofs" || request.as == "tar") && !reference.names_image();
  if (!request.as.empty() && request.as != "auto" && request.as != form && !tree_of_file)
    return fail(
        Code::kUnsupported,
        reference.display() + " cannot be mounted as \"" + request.as +
            "\": registries and oci: directories hold images, URLs and file:/// name files, EROFS images or tarballs");
  if (!reference.names_image() && request.index_only)
    return fail(Code::kInvalid, reference.display() + ": a file needs no index; mount it");
  if (reference.kind == proto::SourceKind::kOciDir && !reference.path.starts_with('/'))
    return fail(Code::kInvalid, reference.display() + ": the directory must be an absolute path");
  return reference;
}

}  // namespace

// One prepare's state, step by step.
struct Preparer::Image {
  proto::SourceReference source;
  source::ResolvedImage resolved;
  std::string key;
  proto::PrepareReply reply;
  uint64_t metadata_size = 0;
  std::vector<LayerReading> readings;  // by layer; with a table until it is found that the table does not serve
  std::vector<uint64_t> device_sizes;  // by layer
};

Result<proto::PrepareReply> Preparer::prepare(const proto::PrepareRequest& request, const PrepareEvents& events,
                                              std::stop_token stop) {
  Image image;
  HYDRANT_TRY(image.source, parse_source(request));
  HYDRANT_TRY(const Trust trust, parse_trust(request.trust));
  HYDRANT_TRY_VOID(check_push(image.source, request));
  if (!image.source.names_image()) {
    events.progress({.phase = "resolve"});
    if (request.as == "erofs") return prepare_erofs(image.source, request.plain_http, catalogue_, origins_);
    if (request.as == "tar") return prepare_tarball(std::move(image), request, events, stop);
    return prepare_file(image.source, request.plain_http, paths_, catalogue_, origins_);
  }
  std::optional<proto::Platform> platform;
  if (!request.platform.empty()) {
    HYDRANT_TRY(platform, proto::Platform::parse(request.platform));
  }
  if (image.source.kind == proto::SourceKind::kRegistry && !request.docker_config.empty()) {
    HYDRANT_TRY(bool changed, credentials_.put(image.source.image.registry, request.docker_config));
    if (changed) origins_.forget_stores();
  }

  events.progress({.phase = "resolve"});
  HYDRANT_TRY(auto origin, origins_.store(image.source, request.plain_http));
  KnownStore store(origin, store_name(image.source), catalogue_);
  HYDRANT_TRY(image.resolved, source::resolve_image(store, image.source.image_reference(), platform,
                                                    Deadline::after(kResolveDeadline)));
  if (auto warning = store.warning(); !warning.empty()) {
    log::warn("prepare.offline", {{"source", image.source.display()}, {"reason", warning}});
    events.warning(warning);
  }

  auto chunk_indexes = settle_layers(image.resolved);
  if (!chunk_indexes) return fail(std::move(chunk_indexes).error().in(image.source.display()));
  const auto& layers = image.resolved.manifest.layers;
  for (size_t i = 0; i < layers.size(); ++i) {
    image.readings.push_back({layers[i].digest, layers[i].size, image.resolved.config.diff_ids[i],
                              image::toc_reference(layers[i].annotations)});
    LayerReading& reading = image.readings.back();
    if (*proto::layer_format(layers[i].media_type) != proto::LayerFormat::kErofs) continue;
    reading.chunks =
        image::erofs_chunk_index_place(layers[i].annotations, layers[i].media_type.ends_with("+zstd"), layers[i].size);
    if (auto apart = chunk_indexes->find(layers[i].digest); !reading.chunks && apart != chunk_indexes->end())
      reading.chunks = apart->second;
  }

  proto::PrepareReply& reply = image.reply;
  reply.domain_id = proto::kDomain;
  reply.source = image.source.display();
  reply.image.manifest = image.resolved.manifest_digest.text();
  reply.image.platform = image.resolved.config.platform.text();
  for (const auto& layer : layers) reply.image.compressed_bytes += layer.size;

  if (!request.index_only) find_indexes(image, *origin, trust, stop);
  HYDRANT_TRY(auto finished, finish(image, request, events, stop));
  if (request.push || !request.convert_to.empty()) {
    const ImageInStore in_store{paths_, catalogue_, origins_, *origin, store_name(image.source), image.resolved};
    PushedIndexes beside(in_store);
    if (request.push) {
      HYDRANT_TRY(auto pushed, beside.push(image.readings, request.sign_key));
      finished.pushed = pushed.text();
    }
    if (!request.convert_to.empty()) {
      HYDRANT_TRY(auto tag, tag_of(image.source, request.convert_to));
      HYDRANT_TRY(auto converted, beside.convert(image.readings, request.sign_key, tag));
      finished.pushed = converted.artifact.text();
      finished.converted = converted.manifest.text();
    }
  }
  return finished;
}

// A tarball is an image of one layer, which nothing names but its origin and its version.
Result<proto::PrepareReply> Preparer::prepare_tarball(Image image, const proto::PrepareRequest& request,
                                                      const PrepareEvents& events, std::stop_token stop) {
  HYDRANT_TRY(auto blob, open_versioned(image.source, origins_));
  if (blob->size() == 0) return fail(Code::kCorrupt, image.source.display() + ": is empty, no tarball");
  LayerReading reading{tarball_id(image.source, *blob), blob->size(), {}, {}};
  reading.tarball = true;
  proto::Descriptor layer;
  layer.digest = reading.layer;
  layer.size = reading.size;
  image.resolved.manifest.layers = {layer};
  image.readings = {reading};
  image.reply.domain_id = proto::kDomain;
  image.reply.source = image.source.display();
  image.reply.image.form = "tar";
  image.reply.image.compressed_bytes = blob->size();
  return finish(image, request, events, stop);
}

// Makes everything that is not here yet, once it is known what the image consists of.
Result<proto::PrepareReply> Preparer::finish(Image& image, const proto::PrepareRequest& request,
                                             const PrepareEvents& events, std::stop_token stop) {
  const size_t layers = image.readings.size();
  HYDRANT_TRY_VOID(stream_missing(image, request, events, stop));
  image.key = key_of(image.readings, options_);
  events.progress({.phase = "merge", .layers = layers});
  HYDRANT_TRY(bool reused, request.index_only ? Result<bool>(false) : reuse(image));
  if (!reused) {
    auto built = build(image, request.index_only);
    malloc_trim(0);  // file tables and trees are large and gone
    if (!built) return fail(std::move(built).error().in(image.source.display()));
  }
  if (!request.index_only) HYDRANT_TRY_VOID(record(image, request));
  for (const std::string& device : image.reply.devices)
    for (const auto& layer : image.reply.image.layers)
      if (layer.device == device) {
        image.reply.proofs.push_back(layer.proof);
        break;
      }
  return std::move(image.reply);
}

// Indexes that the image's manifest binds, then those beside the image, for those of its layers that would have to be
// streamed without.
void Preparer::find_indexes(Image& image, source::ImageStore& store, Trust trust, std::stop_token stop) {
  auto without = [&] {
    std::vector<LayerReading*> readings;
    for (LayerReading& reading : image.readings)
      if (!reading.toc && !reading.pushed && !origins_.index(reading.layer, reading.size)) readings.push_back(&reading);
    return readings;
  };
  const ImageInStore in_store{paths_, catalogue_, origins_, store, store_name(image.source), image.resolved};
  PushedIndexes ours(in_store);
  ForeignIndexes foreign(in_store);
  if (auto readings = without(); !readings.empty()) ours.find_bound(readings, stop);
  if (auto readings = without(); !readings.empty()) foreign.find_bound(readings, stop);
  if (auto readings = without(); !readings.empty()) ours.find(readings, trust, stop);
  if (auto readings = without(); !readings.empty()) foreign.find_beside(readings, trust, stop);
}

// Makes the index of every layer that has none, all at once as far as the streamer has streams, and settles how each
// layer is read.
Result<> Preparer::stream_missing(Image& image, const proto::PrepareRequest& request, const PrepareEvents& events,
                                  std::stop_token stop) {
  const auto& layers = image.resolved.manifest.layers;
  std::vector<LayerStreamer::Ticket> tickets;
  std::vector<std::string> asked;  // devices
  for (size_t i = 0; i < layers.size(); ++i) {
    LayerReading& reading = image.readings[i];
    if (reading.pushed) continue;
    if (std::find(asked.begin(), asked.end(), reading.device()) != asked.end()) continue;
    if (reading.toc && origins_.toc_index(reading.device(), reading.layer, reading.size)) continue;
    // An index that cannot be used is made again. A layer that cannot be read in the middle is streamed again, unless
    // its device is complete.
    if (exists(paths_.index(reading.layer))) {
      auto index = own_index(reading);
      if (index && (request.index_only || (*index)->lazy() || (*index)->ident().device_size == 0)) {
        reading.toc.reset();
        continue;
      }
    }
    asked.push_back(reading.device());
    tickets.push_back(streamer_.stream({.source = image.source,
                                        .plain_http = request.plain_http,
                                        .digest = reading.layer,
                                        .size = reading.size,
                                        .diff_id = reading.diff_id,
                                        .media_type = layers[i].media_type,
                                        .ingest = !request.index_only,
                                        .toc = reading.toc,
                                        .tarball = reading.tarball}));
  }

  proto::Progress progress{.phase = request.index_only ? "index" : "stream", .layers = tickets.size()};
  for (size_t i = 0; i < tickets.size();) {
    if (stop.stop_requested()) return fail(Code::kCancelled, "the client has left");
    progress.done = progress.total = 0;
    for (const auto& ticket : tickets) {
      progress.done += ticket.done();
      progress.total += ticket.total();
    }
    events.progress(progress);
    auto outcome = tickets[i].wait(Deadline::after(kProgressInterval));
    if (!outcome) {
      // A layer that has failed already ends the wait for the one in front of it.
      for (size_t later = i + 1; later < tickets.size() && !outcome; ++later) {
        auto early = tickets[later].wait(Deadline(Instant::min()));
        if (early && !*early) outcome = std::move(early);
      }
      if (!outcome) continue;
    }
    if (!*outcome) return fail(std::move(*outcome).error().in(image.source.display()));
    ++i;
  }
  for (const auto& ticket : tickets) image.reply.image.streamed_bytes += ticket.done();
  for (LayerReading& reading : image.readings)
    if (reading.toc && std::find(asked.begin(), asked.end(), reading.device()) != asked.end() &&
        !origins_.toc_index(reading.device(), reading.layer, reading.size))
      reading.toc.reset();
  return {};
}

// The one that was made here.
Result<std::shared_ptr<const image::LayerIndex>> Preparer::own_index(const LayerReading& reading) {
  return reading.tarball ? origins_.tarball_index(reading.layer, reading.size)
                         : origins_.index(reading.layer, reading.size);
}

Result<std::shared_ptr<const image::LayerIndex>> Preparer::index_of(const LayerReading& reading) {
  if (reading.toc) return origins_.toc_index(reading.device(), reading.layer, reading.size);
  HYDRANT_TRY(auto index, reading.pushed ? origins_.pushed_index(reading.device(), reading.layer, reading.size)
                                         : own_index(reading));
  if (!reading.tarball && !index->proven_as_stored() && index->ident().diff_id != reading.diff_id)
    return fail(Code::kCorrupt, "layer " + reading.layer.text() + " unpacks to " + index->ident().diff_id.text() +
                                    ", but the image's config says " + reading.diff_id.text());
  return index;
}

// True when the same layers have been merged before and the result is still there, unchanged.
Result<bool> Preparer::reuse(Image& image) {
  auto known = catalogue_.image_by_key(image.key);
  if (!known) return false;
  auto facts = proto::parse_image_facts(known->facts);
  if (!facts || facts->layers.size() != image.resolved.manifest.layers.size()) return false;
  for (size_t i = 0; i < facts->layers.size(); ++i) {
    const auto& layer = facts->layers[i];
    if (!have_leaves(paths_, layer.proof)) return false;
    if (!layer.proof.root.empty() || !layer.toc.empty() || layer.device_size == 0) continue;
    // It has no leaves, or was prepared before anybody asked for them.
    auto index = index_of(image.readings[i]);
    if (!index || !(*index)->leaves().empty()) return false;
  }
  auto bytes = read_file(paths_.metadata(known->fsid), kMaxMetadata);
  if (!bytes || sha256(as_bytes(*bytes)).hex() != known->fsid) return false;

  proto::PrepareReply& reply = image.reply;
  reply.fsid = known->fsid;
  reply.meta_digest = "sha256:" + known->fsid;
  reply.devices = known->devices;
  image.metadata_size = bytes->size();
  reply.image.layers = facts->layers;
  reply.image.unpacked_bytes = facts->unpacked_bytes;
  reply.image.files = facts->files;
  for (size_t i = 0; i < image.readings.size(); ++i) reply.image.layers[i].pushed = voucher(image.readings[i]);
  for (const auto& layer : facts->layers) image.device_sizes.push_back(layer.device_size);
  return true;
}

// Side by side: each file is synced, and syncs that come together are one commit of the file system's journal.
Result<> Preparer::keep_all_leaves(const std::vector<std::shared_ptr<const image::LayerIndex>>& indexes,
                                   std::vector<proto::LayerFacts>& layers) {
  std::vector<Result<proto::DeviceProof>> proofs(indexes.size());
  std::vector<size_t> numbers(indexes.size());
  std::iota(numbers.begin(), numbers.end(), size_t{0});
  at_once(numbers, kMostLeavesAtOnce, {}, [&](size_t i) {
    const auto& index = *indexes[i];
    proofs[i] = keep_leaves(paths_, index.ident(), index.merkle_root(), index.leaves());
  });
  for (size_t i = 0; i < proofs.size(); ++i) {
    HYDRANT_TRY(layers[i].proof, std::move(proofs[i]));
  }
  return {};
}

// Merges the layers' file tables and, unless only indexes are wanted, writes the metadata image under its own name.
Result<> Preparer::build(Image& image, bool index_only) {
  const auto& layers = image.resolved.manifest.layers;
  proto::PrepareReply& reply = image.reply;
  std::vector<image::FileTable> tables;
  std::vector<const image::FileTable*> table_pointers;
  std::vector<image::DeviceInfo> devices;
  std::vector<std::shared_ptr<const image::LayerIndex>> indexes;
  tables.reserve(layers.size());
  for (size_t i = 0; i < layers.size(); ++i) {
    const LayerReading& reading = image.readings[i];
    HYDRANT_TRY(auto index, index_of(reading));
    const auto& ident = index->ident();
    HYDRANT_TRY(auto table, index->files());
    tables.push_back(std::move(table));
    table_pointers.push_back(&tables.back());
    devices.push_back({reading.device(), ident.device_size});
    image.device_sizes.push_back(ident.device_size);
    reply.image.layers.push_back({.digest = ident.digest.text(),
                                  .size = layers[i].size,
                                  .diff_id = (reading.tarball ? ident.diff_id : reading.diff_id).text(),
                                  .device = reading.device(),
                                  .device_size = ident.device_size,
                                  .lazy = index->lazy(),
                                  .why = why_not_lazy(*index),
                                  .toc = reading.toc ? image::to_string(reading.toc->kind) : std::string(),
                                  .pushed = voucher(reading),
                                  .proof = {}});
    indexes.push_back(std::move(index));
  }
  HYDRANT_TRY_VOID(keep_all_leaves(indexes, reply.image.layers));
  HYDRANT_TRY(auto tree, image::merge(table_pointers));
  for (const auto& inode : tree.inodes) {
    ++reply.image.files;
    if (inode.entry && inode.entry->type == image::FileType::kRegular) reply.image.unpacked_bytes += inode.entry->size;
  }
  if (index_only) return {};

  HYDRANT_TRY(auto image_id, Digest::parse(image.key));
  HYDRANT_TRY(auto erofs,
              image::write_erofs(
                  tree, devices,
                  {.image_id = image_id, .build_time = commonest_time(tree), .fill_holes = options_.fill_holes}));
  if (erofs.dropped_xattrs > 0)
    log::warn("prepare.xattrs", {{"source", reply.source}, {"dropped", erofs.dropped_xattrs}});
  reply.fsid = sha256(erofs.bytes).hex();
  reply.meta_digest = "sha256:" + reply.fsid;
  for (uint32_t layer : erofs.used_layers) reply.devices.push_back(devices[layer].tag);
  image.metadata_size = erofs.bytes.size();
  HYDRANT_TRY_VOID(make_directories(paths_.metadata_directory()));
  return write_file_atomic(paths_.metadata(reply.fsid), erofs.bytes);
}

// Where the image's objects come from, as this source has them.
Result<> Preparer::record(const Image& image, const proto::PrepareRequest& request) {
  const auto& reply = image.reply;
  std::vector<ObjectRow> objects;
  ObjectRow metadata;
  metadata.id = reply.fsid;
  metadata.kind = ObjectKind::kMetadata;
  metadata.size = image.metadata_size;
  objects.push_back(metadata);
  for (size_t i = 0; i < image.resolved.manifest.layers.size(); ++i) {
    ObjectRow device;
    device.id = image.readings[i].device();
    device.kind = kind_of(image.readings[i]);
    device.size = image.device_sizes[i];
    device.source = image.source.text();
    device.plain_http = request.plain_http;
    device.layer = image.resolved.manifest.layers[i].digest;
    device.stored_size = image.resolved.manifest.layers[i].size;
    objects.push_back(std::move(device));
  }
  ImageRow row;
  row.fsid = reply.fsid;
  row.key = image.key;
  row.source = reply.source;
  row.manifest = reply.image.manifest;
  row.platform = reply.image.platform;
  row.devices = reply.devices;
  row.facts = proto::to_text(reply.image);
  return catalogue_.put_image(row, objects);
}

}  // namespace hydrant::fetch
