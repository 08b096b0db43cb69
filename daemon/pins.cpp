#include "daemon/pins.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <ctime>

#include "base/file.h"
#include "proto/cachefiles_name.h"

namespace hydrant::daemon {

namespace {

std::string name_of(const std::string& volume, const std::string& id) {
  return proto::volume_directory(volume) + "/" + proto::object_name(as_bytes(id)).value_or("");
}

std::set<std::string> names_of(const proto::MountRequest& request) {
  const std::string volume = volume_of(request);
  std::set<std::string> names{name_of(volume, request.fsid)};
  for (const std::string& id : request.devices) names.insert(name_of(volume, id));
  return names;
}

}  // namespace

std::string volume_of(const proto::MountRequest& request) {
  return "erofs," + (request.domain_id.empty() ? request.fsid : request.domain_id);
}

Pins::Pins(std::string directory) : directory_(std::move(directory)) {
  for (const MountRecord& record : load_records(directory_))
    by_source_[record.request.source] = names_of(record.request);
}

Result<> Pins::add(const proto::MountRequest& request) {
  std::lock_guard lock(mutex_);
  HYDRANT_TRY_VOID(make_directories(directory_));
  MountRecord record{.request = request, .device = {}, .boot_id = {}, .mounted_at = ::time(nullptr)};
  record.request.dir.clear();
  HYDRANT_TRY_VOID(write_file_atomic(record_path(directory_, request.source), as_bytes(encode(record))));
  by_source_[request.source] = names_of(request);
  return {};
}

Result<> Pins::remove(const std::string& source) {
  std::lock_guard lock(mutex_);
  if (!by_source_.contains(source)) return fail(Code::kNotFound, source + " is not pinned (hydrant gc tells what is)");
  const std::string path = record_path(directory_, source);
  if (::unlink(path.c_str()) != 0 && errno != ENOENT) return fail_sys(errno, path);
  by_source_.erase(source);
  return {};
}

bool Pins::hold(const ObjectKey& key) const {
  return hold_file(proto::volume_directory(key.volume), proto::object_name(as_bytes(key.id)).value_or(""));
}

bool Pins::hold_file(const std::string& volume_directory, const std::string& file) const {
  const std::string name = volume_directory + "/" + file;
  std::lock_guard lock(mutex_);
  return std::ranges::any_of(by_source_, [&](const auto& pin) { return pin.second.contains(name); });
}

std::vector<std::string> Pins::sources() const {
  std::vector<std::string> out;
  std::lock_guard lock(mutex_);
  for (const auto& [source, names] : by_source_) out.push_back(source);
  return out;
}

}  // namespace hydrant::daemon
