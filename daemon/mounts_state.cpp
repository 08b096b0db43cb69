// Mounts: looking at them and taking them down. Making them is in mounts.cpp.
#include <sys/mount.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>

#include "base/log.h"
#include "base/mount_info.h"
#include "daemon/mounts.h"
#include "daemon/page_cache.h"

namespace hydrant::daemon {

namespace {

// What one answer lists at most, of a line's 1 MiB.
constexpr size_t kMostTouches = 20000;
constexpr Duration kTogether = std::chrono::milliseconds(20);

// How long an umount waits until the kernel has closed the mount's blob files and the cache its objects, commonly some
// milliseconds. A copy of the mount in another mount namespace keeps them open for as long as it likes.
constexpr Duration kCloseLimit = std::chrono::seconds(1);

// Neighbours that were read one after the other are listed as one.
void append(std::vector<uint64_t>& list, const front::Touch& touch) {
  const auto ms = static_cast<uint64_t>(std::chrono::duration_cast<std::chrono::milliseconds>(touch.after).count());
  if (size_t n = list.size(); n > 0) {
    const bool together = ms - list[n - 1] <= static_cast<uint64_t>(kTogether / std::chrono::milliseconds(1));
    if (list[n - 3] + list[n - 2] == touch.range.begin && together) {
      list[n - 2] += touch.range.size();
      return;
    }
  }
  list.insert(list.end(), {touch.range.begin, touch.range.size(), ms});
}

// What is looked for, and asked for, at a time where something is missing.
constexpr uint64_t kLook = 64 << 10;

constexpr std::string_view kVerify = "verify.";
constexpr std::string_view kNotOurs = " is not a mount of hydrant (hydrant ls shows them)";

bool stands_at(const std::vector<MountInfo>& present, const MountRecord& record) {
  for (auto& mount : present)
    if (mount.path == record.request.dir && mount.device == record.device && mount.type == "erofs") return true;
  return false;
}

const char* front_of(const MountRecord& record) {
  return record.request.front.empty() ? "fuse" : record.request.front.c_str();
}

}  // namespace

const char* Mounts::Device::front() const {
  if (marked) return front::MarkedFiles::marked(*marked) ? "fanotify" : "file";
  return blob ? "fuse" : "file";
}

// People unmount with umount(8) too; then our half of the mount goes as well. Who is looked for is settled before the
// mount table is read: a mount made after that reading would be missing in it.
void Mounts::drop_vanished() {
  std::vector<std::shared_ptr<Mount>> gone;  // their objects are given back without the lock
  {
    std::lock_guard lock(mutex_);
    for (auto& [dir, mount] : mounts_)
      if (mount->ready) gone.push_back(mount);
  }
  auto present = read_mounts();
  if (!present) return;
  std::erase_if(gone, [&](auto& mount) { return stands_at(*present, mount->record); });
  {
    // Not ready, an entry still keeps its directory: nobody mounts there while its record goes.
    std::lock_guard lock(mutex_);
    std::erase_if(gone, [&](auto& mount) {
      auto at = mounts_.find(mount->record.request.dir);
      if (at == mounts_.end() || at->second != mount || !mount->ready) return true;
      mount->ready = false;
      return false;
    });
  }
  for (auto& mount : gone) {
    const std::string& dir = mount->record.request.dir;
    delete_record(options_.records, dir);
    {
      std::lock_guard lock(mutex_);
      mounts_.erase(dir);
    }
    log::info("unmounted-by-others", {{"dir", dir}});
  }
}

// The key of the table that `dir` means: itself, or what its symlinks lead to.
Result<std::string> Mounts::resolve(const std::string& dir) {
  {
    std::lock_guard lock(mutex_);
    if (mounts_.contains(dir)) return dir;
  }
  char* real = ::realpath(dir.c_str(), nullptr);
  if (!real) return fail(Code::kNotFound, dir + std::string(kNotOurs));
  std::string path = real;
  ::free(real);
  return path;
}

Result<> Mounts::umount(const std::string& asked, bool lazy) {
  HYDRANT_TRY(auto mount, take_down(asked, lazy));
  if (lazy) return {};
  // Whoever asked may make room next, or mount again: then nothing of this mount is in use any more.
  struct Used {
    ObjectKey key;
    std::weak_ptr<const void> by;  // by this mount alone, if that goes with it
  };
  std::vector<Used> used;
  auto note = [&](const Device& device) {
    if (!device.object) return;
    std::weak_ptr<const void> by = device.object;
    if (device.blob) by = device.blob;
    if (device.marked) by = device.marked;
    used.push_back({device.object->key(), std::move(by)});
  };
  note(mount->metadata);
  for (const Device& device : mount->devices) note(device);
  mount.reset();
  if (auto* marks = marks_.now()) marks->collect();
  std::vector<ObjectKey> keys;
  for (auto& each : used)
    if (each.by.expired()) keys.push_back(std::move(each.key));
  objects_.wait_until_closed(keys, Deadline::after(kCloseLimit));
  return {};
}

// What is left of the mount: the objects that it used.
Result<std::shared_ptr<Mounts::Mount>> Mounts::take_down(const std::string& asked, bool lazy) {
  drop_vanished();
  HYDRANT_TRY(std::string dir, resolve(asked));
  std::shared_ptr<Mount> mount;
  {
    std::lock_guard lock(mutex_);
    auto at = mounts_.find(dir);
    if (at == mounts_.end()) return fail(Code::kNotFound, asked + std::string(kNotOurs));
    if (!at->second->ready) return fail(Code::kBusy, dir + " is being mounted or unmounted by another request");
    mount = at->second;
    mount->ready = false;
  }
  auto back_out = [&](Error error) {
    std::lock_guard lock(mutex_);
    mount->ready = true;
    return fail(std::move(error));
  };

  auto present = read_mounts();
  if (!present) return back_out(std::move(present).error());
  const MountInfo* top = find_mount(*present, dir);
  if (top && (top->type != "erofs" || top->device != mount->record.device))
    return back_out({.code = Code::kBusy, .what = "something else (" + top->type + ") is mounted over " + dir});
  if (::umount2(dir.c_str(), UMOUNT_NOFOLLOW | (lazy ? MNT_DETACH : 0))) {
    int err = errno;
    if (err == EBUSY)
      return back_out({.code = Code::kBusy,
                       .what = dir + " is in use: a program has a file or its working directory there, or a mount "
                                     "stands on it; end it, or use --lazy",
                       .sys = err});
    return back_out(sys_error(err, "umount " + dir));
  }
  delete_record(options_.records, dir);
  {
    std::lock_guard lock(mutex_);
    mounts_.erase(dir);
  }
  log::info("unmounted", {{"dir", dir}, {"lazy", lazy}});
  return mount;
}

Result<proto::MountReply> Mounts::repair(const std::string& asked, std::stop_token stop, const Report& report) {
  drop_vanished();
  HYDRANT_TRY(std::string dir, resolve(asked));
  proto::MountRequest request;
  {
    std::lock_guard lock(mutex_);
    auto at = mounts_.find(dir);
    if (at == mounts_.end()) return fail(Code::kNotFound, asked + std::string(kNotOurs));
    if (!at->second->dead) return fail(Code::kInvalid, dir + " is alive: there is nothing to repair");
    request = at->second->record.request;
  }
  HYDRANT_TRY_VOID(umount(dir, true));
  auto mounted = mount(request, stop, report);
  if (!mounted) return fail(std::move(mounted.error()).in(dir + " is taken down, and could not be mounted again"));
  return mounted;
}

void Mounts::close() {
  {
    std::lock_guard lock(mutex_);
    closed_ = true;
  }
  for (auto& entry : list().mounts) {
    auto done = take_down(entry.dir, false);
    if (!done && done.error().code == Code::kBusy) done = take_down(entry.dir, true);
    if (!done) log::error("umount-failed", {{"dir", entry.dir}, {"why", done.error().what}});
  }
}

proto::ListReply Mounts::list() {
  drop_vanished();
  proto::ListReply reply;
  std::lock_guard lock(mutex_);
  for (auto& [dir, mount] : mounts_) {
    if (!mount->ready) continue;
    const MountRecord& record = mount->record;
    reply.mounts.push_back({.dir = dir,
                            .fsid = record.request.fsid,
                            .source = record.request.source,
                            .state = mount->dead ? "dead" : "live",
                            .devices = record.request.devices.size(),
                            .mounted_at = record.mounted_at,
                            .front = front_of(record)});
  }
  return reply;
}

Result<proto::StatMountReply> Mounts::stat(const std::string& asked) {
  drop_vanished();
  HYDRANT_TRY(std::string dir, resolve(asked));
  std::shared_ptr<Mount> mount;
  {
    std::lock_guard lock(mutex_);
    auto at = mounts_.find(dir);
    if (at == mounts_.end() || !at->second->ready) return fail(Code::kNotFound, asked + std::string(kNotOurs));
    mount = at->second;
  }
  // Everything but `ready` is constant from here on.
  const MountRecord& record = mount->record;
  proto::StatMountReply reply{.dir = dir,
                              .fsid = record.request.fsid,
                              .source = record.request.source,
                              .state = mount->dead ? "dead" : "live",
                              .mounted_at = record.mounted_at,
                              .devices = {},
                              .metadata = {.id = record.request.fsid, .size = 0},
                              .counters = {},
                              .image = record.request.image,
                              .front = front_of(record)};
  if (mount->metadata.object) reply.metadata.size = mount->metadata.object->cookie().size();
  for (const Device& device : mount->devices) {
    auto stat = device.object->cookie().stat();
    reply.devices.push_back({.id = device.object->key().id,
                             .size = stat.size,
                             .present = stat.present_bytes,
                             .durable = stat.durable_bytes,
                             .front = device.front(),
                             .verify = stat.proven ? "engine" : "fetchd",
                             .reads = stat.reads_requested});
  }
  if (mount->dead)
    for (auto& id : record.request.devices)
      reply.devices.push_back(
          {.id = id, .size = 0, .present = 0, .durable = 0, .front = reply.front, .verify = {}, .reads = 0});
  auto front = blobs_.stat();
  reply.counters = {{"hydrant_front_hits", front.hits},
                    {"hydrant_front_misses", front.misses},
                    {"hydrant_front_errors", front.errors},
                    {"hydrant_front_too_slow", front.too_slow},
                    {"hydrant_front_interrupted", front.interrupted},
                    {"hydrant_front_waiting", front.waiting},
                    {"hydrant_front_bytes", front.bytes}};
  if (auto* marks = marks_.now()) {
    const auto marked = marks->stat();
    reply.counters.insert({{"hydrant_fanotify_hits", marked.hits},
                           {"hydrant_fanotify_misses", marked.misses},
                           {"hydrant_fanotify_errors", marked.errors},
                           {"hydrant_fanotify_too_slow", marked.too_slow},
                           {"hydrant_fanotify_waiting", marked.waiting},
                           {"hydrant_fanotify_files", marked.files}});
  }
  // Of the engine: of all mounts.
  for (const auto& [name, value] : objects_.engine().listing(0).counters)
    if (name.starts_with(kVerify)) reply.counters["hydrant_verify_" + name.substr(kVerify.size())] = value;
  return reply;
}

Result<std::shared_ptr<Mounts::Mount>> Mounts::latest(const std::string& fsid) {
  drop_vanished();
  std::shared_ptr<Mount> latest;
  std::lock_guard lock(mutex_);
  for (auto& [dir, mount] : mounts_)
    if (mount->ready && !mount->dead && mount->record.request.fsid == fsid &&
        (!latest || mount->record.mounted_at > latest->record.mounted_at))
      latest = mount;
  if (!latest) return fail(Code::kNotFound, "image " + fsid + " is not mounted");
  return latest;
}

Result<> Mounts::reopen(const std::string& fsid) {
  HYDRANT_TRY(auto mount, latest(fsid));
  for (const Device& device : mount->devices) {
    cachefiles::Cookie& cookie = device.object->cookie();
    for (uint64_t at = 0; at < cookie.size(); at += kLook) {
      const ByteRange part{at, std::min(at + kLook, cookie.size())};
      if (cookie.present(part)) continue;
      cookie.ensure(part, [](int) {});
      break;
    }
  }
  return {};
}

Result<> Mounts::withdraw(const std::string& id) {
  drop_vanished();
  std::vector<std::shared_ptr<Mount>> uses;
  {
    std::lock_guard lock(mutex_);
    for (auto& [dir, mount] : mounts_)
      if (mount->ready && std::ranges::find(mount->record.request.devices, id) != mount->record.request.devices.end())
        uses.push_back(mount);
  }
  if (uses.empty()) return fail(Code::kNotFound, "no mount uses object " + id);
  std::string stays;
  for (auto& mount : uses) {
    const std::string& dir = mount->record.request.dir;
    if (mount->dead) stays = dir;
    for (const Device& device : mount->devices) {
      if (device.object->key().id != id) continue;
      if (!device.blob && !device.marked) stays = dir;
      device.object->cookie().invalidate();
    }
    if (auto forgotten = forget_pages(dir); !forgotten) return forgotten;
    log::warn("object-withdrawn", {{"id", id}, {"dir", dir}});
  }
  if (stays.empty()) return {};
  return fail(Code::kBusy, "what is mounted at " + stays + " reads object " + id + " without us; unmount it");
}

Result<proto::TouchedReply> Mounts::touched(const std::string& fsid) {
  HYDRANT_TRY(auto latest, this->latest(fsid));
  proto::TouchedReply reply{.mounted_at = latest->record.mounted_at};
  size_t listed = 0;
  for (const Device& device : latest->devices) {
    if (!device.blob && !device.marked) continue;
    proto::DeviceTouches touches{.id = device.object->key().id};
    for (const front::Touch& touch :
         device.marked ? front::MarkedFiles::touches(*device.marked) : blobs_.touches(device.blob->name()))
      if (listed + touches.ranges.size() / 3 < kMostTouches) append(touches.ranges, touch);
    listed += touches.ranges.size() / 3;
    if (!touches.ranges.empty()) reply.devices.push_back(std::move(touches));
  }
  return reply;
}

}  // namespace hydrant::daemon
