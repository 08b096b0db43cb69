#include "source/file/oci_dir.h"

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "base/file.h"
#include "proto/oci.h"
#include "source/file/file_blob.h"

namespace hydrant::source {

namespace {

constexpr const char* kRefName = "org.opencontainers.image.ref.name";

std::string tag_of(const proto::Descriptor& entry) {
  auto found = entry.annotations.find(kRefName);
  return found == entry.annotations.end() ? std::string() : found->second;
}

std::string list_of_tags(const proto::ImageIndex& index) {
  std::string out;
  for (const auto& entry : index.manifests) {
    auto tag = tag_of(entry);
    if (tag.empty()) continue;
    if (out.size() > 300) return out + ", …";
    out += (out.empty() ? "" : ", ") + tag;
  }
  return out.empty() ? "it has no tags" : "there are " + out;
}

std::string blob_path(const std::string& directory, const Digest& digest) {
  return directory + "/blobs/sha256/" + digest.hex();
}

}  // namespace

Result<std::shared_ptr<OciDirStore>> OciDirStore::open(const std::string& directory) {
  std::error_code error;
  if (!std::filesystem::is_directory(directory, error)) {
    if (std::filesystem::exists(directory, error))
      return fail(Code::kUnsupported,
                  directory + " is not a directory; unpack an archive first, or name it as file://");
    return fail(error && error != std::errc::no_such_file_or_directory
                    ? sys_error(error.value(), directory)
                    : Error{Code::kNotFound, directory + ": no such directory"});
  }
  auto marker = read_file(directory + "/oci-layout", 4096);
  if (!marker) {
    if (marker.error().code != Code::kNotFound) return fail(std::move(marker.error()));
    return fail(Code::kUnsupported, directory + " is no OCI image layout: it has no file oci-layout");
  }
  auto json = nlohmann::json::parse(*marker, nullptr, false);
  auto version = json.is_object() ? json.find("imageLayoutVersion") : json.end();
  if (!json.is_object() || version == json.end() || !version->is_string() ||
      !version->get_ref<const std::string&>().starts_with("1."))
    return fail(Code::kUnsupported, directory + "/oci-layout does not say version 1 of the OCI image layout");
  return std::shared_ptr<OciDirStore>(new OciDirStore(directory));
}

Result<StoredManifest> OciDirStore::manifest(const std::string& reference, Deadline deadline) {
  const auto index_path = directory_ + "/index.json";
  HYDRANT_TRY(std::string index_text, read_file(index_path, proto::kMaxDocument));
  auto decoded = proto::decode_manifest(index_text, proto::media::kOciIndex);
  if (!decoded) return fail(std::move(decoded.error()).in(index_path));
  auto* index = std::get_if<proto::ImageIndex>(&*decoded);
  if (!index) return fail(Code::kCorrupt, index_path + ": is no image index");
  const auto& entries = index->manifests;

  auto found = entries.end();
  if (reference.empty()) {
    if (entries.empty()) return fail(Code::kNotFound, describe() + " holds no image");
    // Untagged entries that differ by platform are one image, and the directory's index is that image's.
    bool one_image = std::all_of(entries.begin(), entries.end(),
                                 [](const auto& entry) { return entry.platform && tag_of(entry).empty(); });
    if (entries.size() > 1 && one_image)
      return StoredManifest{std::string(proto::media::kOciIndex), index_text, sha256(as_bytes(index_text))};
    if (entries.size() > 1)
      return fail(Code::kInvalid, describe() + " holds several images: add :TAG; " + list_of_tags(*index));
    found = entries.begin();
  } else if (reference.starts_with("sha256:")) {
    HYDRANT_TRY(Digest digest, Digest::parse(reference));
    found = std::find_if(entries.begin(), entries.end(), [&](const auto& entry) { return entry.digest == digest; });
    // One below an index of an index is named by its digest alone.
    if (found == entries.end()) {
      auto body = read_file(blob_path(directory_, digest), proto::kMaxDocument);
      if (!body) {
        if (body.error().code != Code::kNotFound) return fail(std::move(body.error()));
        return fail(Code::kNotFound, describe() + ": no manifest " + reference);
      }
      if (sha256(as_bytes(*body)) != digest)
        return fail(Code::kCorrupt, describe() + ": bytes of " + reference + " do not match their digest");
      return StoredManifest{"", std::move(*body), digest};
    }
  } else {
    found = std::find_if(entries.begin(), entries.end(), [&](const auto& entry) { return tag_of(entry) == reference; });
    if (found == entries.end())
      return fail(Code::kNotFound, describe() + ": no tag '" + reference + "'; " + list_of_tags(*index));
  }

  if (found->size > proto::kMaxDocument)
    return fail(Code::kUnsupported, describe() + ": manifest is larger than 4 MiB");
  HYDRANT_TRY(auto opened, blob(found->digest, found->size, deadline));
  HYDRANT_TRY(Buffer body, read_all(*opened, {.range = {0, found->size}, .deadline = deadline, .stop = {}}));
  auto checked = proto::check_bytes(*found, body);
  if (!checked) return fail(std::move(checked.error()).in(describe()));
  return StoredManifest{found->media_type, std::string(as_text(body)), found->digest};
}

Result<std::shared_ptr<Blob>> OciDirStore::blob(const Digest& digest, uint64_t size, Deadline) {
  const auto path = blob_path(directory_, digest);
  auto blob = FileBlob::open(path, /*proven=*/true);
  if (!blob) {
    if (blob.error().code != Code::kNotFound) return fail(std::move(blob.error()));
    return fail(Code::kNotFound, describe() + ": blob " + digest.text() + " is missing; copy the image again");
  }
  if ((*blob)->size() != size)
    return fail(Code::kCorrupt,
                path + " has " + std::to_string((*blob)->size()) + " bytes, the manifest says " + std::to_string(size));
  return std::shared_ptr<Blob>(std::move(*blob));
}

}  // namespace hydrant::source
