#include "fetch/prepare_file.h"

#include "base/file.h"
#include "image/erofs/writer.h"
#include "image/tree/merge.h"
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

}  // namespace

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
  HYDRANT_TRY(auto blob, origins.open_blob(source, Deadline::after(kOpenDeadline)));
  const uint64_t size = blob->size();
  const auto version = blob->version();
  if (!version.ranges)
    return fail(Code::kUnsupported,
                source.display() + ": the server has no ranges, so nothing can be read in the middle");
  if (version.validator.empty())
    return fail(Code::kUnsupported, source.display() +
                                        ": the server tells neither an ETag nor when the file was modified, "
                                        "so a change could not be noticed");
  if (size > proto::kNominalSize)
    return fail(Code::kUnsupported,
                source.display() + ": is " + std::to_string(size) + " bytes long; 8 TiB is the limit");

  ObjectRow device;
  device.id = file_object_id(source, *blob);
  device.kind = ObjectKind::kFile;
  device.size = round_up(size, 4096);
  device.source = source.text();
  device.plain_http = plain_http;
  device.stored_size = size;

  auto erofs = write_metadata(file_name(source), size, version.modified, {device.id, device.size});
  if (!erofs) return fail(std::move(erofs).error().in(source.display()));

  proto::PrepareReply reply;
  reply.domain_id = proto::kDomain;
  reply.source = source.display();
  reply.fsid = sha256(erofs->bytes).hex();
  reply.meta_digest = "sha256:" + reply.fsid;
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

}  // namespace hydrant::fetch
