#include "daemon/mount_record.h"

#include <filesystem>

#include "base/digest.h"
#include "base/file.h"
#include "base/log.h"

namespace hydrant::daemon {

namespace {
constexpr int kVersion = 1;
}  // namespace

std::string encode(const MountRecord& record) {
  const proto::MountRequest& request = record.request;
  proto::Json json = {{"version", kVersion},
                      {"dir", request.dir},
                      {"fsid", request.fsid},
                      {"devices", request.devices},
                      {"domain_id", request.domain_id},
                      {"meta_digest", request.meta_digest},
                      {"source", request.source},
                      {"image", request.image},
                      {"read_ahead_kb", request.read_ahead_kb},
                      {"device", record.device},
                      {"boot_id", record.boot_id},
                      {"mounted_at", record.mounted_at}};
  // Left out where there are none, so that a hydrantd before them reads the same record.
  for (const proto::DeviceProof& proof : request.proofs)
    json["proofs"].push_back({{"root", proof.root},
                              {"size", proof.size},
                              {"granule", proof.granule},
                              {"layout_version", proof.layout_version}});
  if (!request.file.empty()) json["file"] = request.file;
  if (!request.front.empty()) json["front"] = request.front;
  if (!record.marked.empty()) json["marked"] = record.marked;
  return json.dump(1, ' ', false, proto::Json::error_handler_t::replace) + "\n";
}

Result<MountRecord> decode_mount_record(std::string_view text) {
  auto json = proto::parse_json(text);
  if (!json) return fail(Code::kCorrupt, "mount record: " + json.error().what);
  try {
    if (int version = json->at("version").get<int>(); version != kVersion)
      return fail(Code::kCorrupt, "mount record of version " + std::to_string(version));
    MountRecord record;
    record.request.dir = json->at("dir").get<std::string>();
    record.request.fsid = json->at("fsid").get<std::string>();
    record.request.devices = json->at("devices").get<std::vector<std::string>>();
    record.request.domain_id = json->at("domain_id").get<std::string>();
    record.request.meta_digest = json->at("meta_digest").get<std::string>();
    record.request.source = json->at("source").get<std::string>();
    record.request.image = json->at("image").get<std::string>();
    record.request.read_ahead_kb = json->at("read_ahead_kb").get<uint32_t>();
    if (json->contains("proofs"))
      for (const proto::Json& each : json->at("proofs"))
        record.request.proofs.push_back({each.at("root").get<std::string>(), each.at("size").get<uint64_t>(),
                                         each.at("granule").get<uint32_t>(),
                                         each.at("layout_version").get<uint32_t>()});
    if (json->contains("file")) record.request.file = json->at("file").get<std::string>();
    if (json->contains("front")) record.request.front = json->at("front").get<std::string>();
    if (json->contains("marked")) record.marked = json->at("marked").get<std::vector<uint64_t>>();
    record.device = json->at("device").get<std::string>();
    record.boot_id = json->at("boot_id").get<std::string>();
    record.mounted_at = json->at("mounted_at").get<int64_t>();
    return record;
  } catch (const proto::Json::exception& error) {
    return fail(Code::kCorrupt, std::string("mount record: ") + error.what());
  }
}

std::string record_path(const std::string& directory, const std::string& mount_point) {
  return directory + "/" + sha256(as_bytes(mount_point)).hex() + ".json";
}

Result<> save_record(const std::string& directory, const MountRecord& record) {
  return write_file_atomic(record_path(directory, record.request.dir), as_bytes(encode(record)));
}

void delete_record(const std::string& directory, const std::string& mount_point) {
  ::unlink(record_path(directory, mount_point).c_str());
}

std::vector<MountRecord> load_records(const std::string& directory) {
  std::vector<MountRecord> records;
  std::error_code error;
  for (std::filesystem::directory_iterator at(directory, error), end; !error && at != end; at.increment(error)) {
    if (at->path().extension() != ".json") continue;
    auto text = read_file(at->path().string(), 2 * proto::kAdminLineLimit);
    auto record = text ? decode_mount_record(*text) : Result<MountRecord>(fail(std::move(text).error()));
    if (record)
      records.push_back(std::move(*record));
    else
      log::warn("mount-record-ignored", {{"file", at->path().string()}, {"why", record.error().what}});
  }
  return records;
}

}  // namespace hydrant::daemon
