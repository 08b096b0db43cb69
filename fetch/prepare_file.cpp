#include "fetch/prepare_file.h"

#include "base/file.h"
#include "image/erofs/writer.h"
#include "image/tree/merge.h"
#include "proto/erofs_layout.h"
#include "proto/object_id.h"

namespace hydrant::fetch {

namespace {

// Less than a client waits for a sign of life.
constexpr auto kOpenDeadline = std::chrono::seconds(30);
constexpr size_t kMaxFileName = 255;

// The tree with that one file, on its device. An empty file has no device.
Result<image::ErofsImage> write_metadata(const std::string& name, uint64_t size, int64_t modified,
                                         const image::DeviceInfo& device) {
  image::FileEntry file;
  file.path = name;
  file.mode = 0444;
  file.mtime = modified;
  file.size = size;
  if (size > 0) file.data.push_back({.file_offset = 0, .device_offset = 0, .length = size});
  const image::FileTable table{std::move(file)};
  const image::FileTable* tables[] = {&table};
  HYDRANT_TRY(auto tree, image::merge(tables));
  return image::write_erofs(tree, {&device, 1}, {sha256(as_bytes(device.tag)), modified});
}

// The blob as it is, padded to a block.
ObjectRow whole_object(const proto::SourceReference& source, std::optional<bool> plain_http, const source::Blob& blob) {
  ObjectRow row;
  row.id = file_object_id(source, blob);
  row.kind = ObjectKind::kFile;
  row.size = round_up(blob.size(), 4096);
  row.source = source.text();
  row.plain_http = plain_http;
  row.stored_size = blob.size();
  return row;
}

}  // namespace

Result<std::shared_ptr<source::Blob>> open_versioned(const proto::SourceReference& source, Origins& origins) {
  HYDRANT_TRY(auto blob, origins.open_blob(source, Deadline::after(kOpenDeadline)));
  const auto version = blob->version();
  if (!version.ranges)
    return fail(Code::kUnsupported,
                source.display() + ": the server has no ranges, so nothing can be read in the middle");
  if (version.validator.empty())
    return fail(Code::kUnsupported, source.display() +
                                        ": the server tells neither an ETag nor when the file was modified, "
                                        "so a change could not be noticed");
  if (blob->size() > proto::kNominalSize)
    return fail(Code::kUnsupported,
                source.display() + ": is " + std::to_string(blob->size()) + " bytes long; 8 TiB is the limit");
  return blob;
}

std::string file_name(const proto::SourceReference& source) {
  std::string path = source.path;
  if (source.kind != proto::SourceKind::kFile) {
    std::string url = proto::url_without_secrets(source.url);
    size_t slash = url.find('/', url.find("://") + 3);
    path = slash == url.npos ? "" : proto::percent_decode(url.substr(slash)).value_or(url.substr(slash));
  }
  std::string name = path.substr(path.rfind('/') + 1).substr(0, kMaxFileName);
  return name.empty() || name == "." || name == ".." ? "file" : name;
}

Result<proto::PrepareReply> prepare_file(const proto::SourceReference& source, std::optional<bool> plain_http,
                                         const Paths& paths, Catalogue& catalogue, Origins& origins) {
  HYDRANT_TRY(auto blob, open_versioned(source, origins));
  const uint64_t size = blob->size();
  const auto modified = blob->version().modified;
  ObjectRow device = whole_object(source, plain_http, *blob);

  auto erofs = write_metadata(file_name(source), size, modified, {device.id, device.size});
  if (!erofs) return fail(std::move(erofs).error().in(source.display()));

  proto::PrepareReply reply;
  reply.domain_id = proto::kDomain;
  reply.source = source.display();
  reply.fsid = sha256(erofs->bytes).hex();
  reply.meta_digest = "sha256:" + reply.fsid;
  reply.file = file_name(source);
  reply.image.form = "file";
  reply.image.files = 1;
  reply.image.compressed_bytes = reply.image.unpacked_bytes = size;
  HYDRANT_TRY_VOID(make_directories(paths.metadata_directory()));
  HYDRANT_TRY_VOID(write_file_atomic(paths.metadata(reply.fsid), erofs->bytes));

  ObjectRow metadata;
  metadata.id = reply.fsid;
  metadata.kind = ObjectKind::kMetadata;
  metadata.size = erofs->bytes.size();
  std::vector<ObjectRow> objects{metadata};
  if (!erofs->used_layers.empty()) {
    reply.devices.push_back(device.id);
    origins.opened(device.id, std::move(blob));
    objects.push_back(std::move(device));
  }
  ImageRow row;
  row.fsid = reply.fsid;
  row.key = reply.fsid;  // made anew each time: nothing looks for it
  row.source = reply.source;
  row.devices = reply.devices;
  row.facts = proto::to_text(reply.image);
  HYDRANT_TRY_VOID(catalogue.put_image(row, objects));
  return reply;
}

Result<proto::PrepareReply> prepare_erofs(const proto::SourceReference& source, std::optional<bool> plain_http,
                                          Catalogue& catalogue, Origins& origins) {
  const Deadline deadline = Deadline::after(kOpenDeadline);
  HYDRANT_TRY(auto blob, open_versioned(source, origins));
  constexpr ByteRange kSuperblock{proto::erofs::kSuperblockAt,
                                  proto::erofs::kSuperblockAt + sizeof(proto::erofs::Superblock)};
  if (blob->size() < kSuperblock.end) return fail(Code::kCorrupt, source.display() + ": not an EROFS image");
  HYDRANT_TRY(auto superblock, source::read_all(*blob, {kSuperblock, deadline, {}}));
  auto outline = proto::erofs::decode_outline(superblock, blob->size());
  if (!outline) return fail(std::move(outline).error().in(source.display()));
  if (outline->devices() > 0)
    return fail(Code::kUnsupported, source.display() + ": the EROFS image keeps data on " +
                                        std::to_string(outline->devices()) + " more devices, which are not served");

  ObjectRow object = whole_object(source, plain_http, *blob);
  proto::PrepareReply reply;
  reply.source = source.display();
  reply.fsid = object.id;
  reply.image.form = "file";
  reply.image.files = 1;
  reply.image.compressed_bytes = reply.image.unpacked_bytes = blob->size();
  ImageRow row;
  row.fsid = row.key = reply.fsid;
  row.source = reply.source;
  row.devices = {object.id};  // for the counters: it is its own device
  row.facts = proto::to_text(reply.image);
  origins.opened(object.id, std::move(blob));
  HYDRANT_TRY_VOID(catalogue.put_image(row, {object}));
  return reply;
}

}  // namespace hydrant::fetch
