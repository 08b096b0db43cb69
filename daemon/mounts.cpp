#include "daemon/mounts.h"

#include <sys/mount.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <ctime>
#include <filesystem>
#include <set>

#include "base/boot_id.h"
#include "base/digest.h"
#include "base/file.h"
#include "base/fs_context.h"
#include "base/log.h"
#include "base/mount_info.h"
#include "daemon/mount_check.h"
#include "daemon/page_cache.h"
#include "proto/erofs_layout.h"

namespace hydrant::daemon {

namespace {

constexpr uint64_t kMetadataStep = 4 << 20;
constexpr uint64_t kMetadataLimit = uint64_t{16} << 30;  // far above any image's; an answer beyond is a mistake
constexpr size_t kMaxDevices = 4096;

// What may be a key of the cache, a part of a volume's name and of a file name.
Result<> check_id(const std::string& id, size_t limit, std::string_view what) {
  bool plain = !id.empty() && id.size() <= limit &&
               std::all_of(id.begin(), id.end(), [](char c) { return c != '/' && c != '\0' && c != '\n'; });
  if (!plain) return fail(Code::kInvalid, std::string(what) + " is not a usable name: \"" + id + "\"");
  return {};
}

Result<> check(const proto::MountRequest& request) {
  if (request.dir.empty() || request.dir[0] != '/')
    return fail(Code::kInvalid, "the mount point must be an absolute path: \"" + request.dir + "\"");
  HYDRANT_TRY_VOID(check_id(request.fsid, 240, "fsid"));
  if (!request.domain_id.empty()) HYDRANT_TRY_VOID(check_id(request.domain_id, 240, "domain_id"));
  if (request.devices.size() > kMaxDevices) return fail(Code::kInvalid, "more than 4096 devices");
  for (auto& id : request.devices) HYDRANT_TRY_VOID(check_id(id, 255, "device"));
  if (!request.proofs.empty() && request.proofs.size() != request.devices.size())
    return fail(Code::kInvalid, "there must be a proof a device, or none");
  for (auto& proof : request.proofs) HYDRANT_TRY_VOID(proto::parse_proof(proof));
  if (request.file.find('/') != std::string::npos || request.file == "." || request.file == "..")
    return fail(Code::kInvalid, "a file that is mounted stands in the image's root: " + request.file);
  if (request.front != "" && request.front != "auto" && request.front != "fuse" && request.front != "fanotify")
    return fail(Code::kInvalid, "a front is auto, fuse or fanotify: \"" + request.front + "\"");
  if (request.read_ahead_kb > 16384) return fail(Code::kInvalid, "read_ahead_kb must be at most 16384");
  return {};
}

// Of the device at `index`. What cannot be read proves nothing: it was checked when the mount was made.
std::optional<proto::MerkleProof> proof_of(const proto::MountRequest& request, size_t index) {
  auto proof = index < request.proofs.size() ? proto::parse_proof(request.proofs[index]) : std::nullopt;
  return proof ? *proof : std::nullopt;
}

// Where a directory descriptor leads, symlinks resolved.
Result<std::string> path_of(const Fd& directory) {
  char buffer[4096];
  ssize_t n = ::readlink(("/proc/self/fd/" + std::to_string(directory.get())).c_str(), buffer, sizeof buffer);
  if (n < 0 || n == sizeof buffer) return fail_sys(n < 0 ? errno : ENAMETOOLONG, "resolve the mount point");
  return std::string(buffer, static_cast<size_t>(n));
}

Result<Fd> open_mount_point(const proto::MountRequest& request) {
  const bool file = !request.file.empty();
  auto target = open_file(request.dir, O_PATH | (file ? 0 : O_DIRECTORY));
  const std::string name = "mount point " + request.dir;
  if (!target && target.error().sys == ENOENT) return fail(Code::kInvalid, name + " does not exist: create it first");
  if (!target && target.error().sys == ENOTDIR) return fail(Code::kInvalid, name + " is not a directory");
  if (!target) return fail(std::move(target.error()).in("mount point"));
  struct stat status {};
  if (::fstat(target->get(), &status)) return fail_sys(errno, name);
  if (file && !S_ISREG(status.st_mode)) return fail(Code::kInvalid, name + " is no file, and one is to stand there");
  return std::move(*target);
}

}  // namespace

// A directory that somebody works on. Unless kept, its entry goes away with it.
class Mounts::Reservation {
 public:
  Reservation(Mounts& mounts, std::string dir) : mounts_(mounts), dir_(std::move(dir)) {}
  Reservation(const Reservation&) = delete;
  ~Reservation() {
    std::shared_ptr<Mount> last;  // its objects are given back without the lock
    std::lock_guard lock(mounts_.mutex_);
    auto at = mounts_.mounts_.find(dir_);
    if (kept_ || at == mounts_.mounts_.end()) return;
    last = std::move(at->second);
    mounts_.mounts_.erase(at);
  }
  void keep(Mount mount) {
    auto ready = std::make_shared<Mount>(std::move(mount));
    ready->ready = true;
    std::lock_guard lock(mounts_.mutex_);
    mounts_.mounts_[dir_] = std::move(ready);
    kept_ = true;
  }

 private:
  Mounts& mounts_;
  const std::string dir_;
  bool kept_ = false;
};

Result<std::unique_ptr<Mounts>> Mounts::create(MountsOptions options, Objects& objects, Pins& pins,
                                               front::BlobFs& blobs, StoredMarks& marks,
                                               const std::optional<Handed>& handed) {
  std::unique_ptr<Mounts> mounts(new Mounts(std::move(options), objects, pins, blobs, marks));
  HYDRANT_TRY_VOID(mounts->adopt_records(handed));
  return mounts;
}

Result<> Mounts::adopt_records(const std::optional<Handed>& handed) {
  // Names that no mount uses go at the end of this.
  std::vector<std::shared_ptr<BlobFile>> files;
  if (handed)
    for (auto& [key, name] : *handed) {
      files.push_back(std::make_shared<BlobFile>(blobs_, name));
      blob_files_[key] = files.back();
    }
  HYDRANT_TRY(boot_id_, boot_id());
  HYDRANT_TRY(auto present, read_mounts());
  for (MountRecord& record : load_records(options_.records)) {
    std::string dir = record.request.dir;
    bool stands =
        record.boot_id == boot_id_ && std::any_of(present.begin(), present.end(), [&](const MountInfo& mount) {
          return mount.path == dir && mount.type == "erofs" && mount.device == record.device;
        });
    if (!stands) {
      log::info("mount-record-dropped", {{"dir", dir}, {"why", "nothing of ours is mounted there"}});
      delete_record(options_.records, dir);
      continue;
    }
    auto mount = std::make_shared<Mount>();
    mount->record = std::move(record);
    mount->ready = true;
    const bool by_marks = mount->record.request.front == "fanotify";
    const bool held = by_marks || handed.has_value();
    if (auto ours = held ? adopt(*mount) : fail(Code::kGone, "its hydrantd died and nobody held what it served it by");
        !ours) {
      log::warn("mount-of-a-dead-daemon",
                {{"dir", dir}, {"why", ours.error().what}, {"way_out", "hydrant umount " + dir}});
      if (by_marks) deny_marked(*mount);
      mount->dead = true;
      mount->metadata = {};
      mount->devices.clear();
    }
    mounts_.emplace(dir, std::move(mount));
  }
  return {};
}

// Waits for nobody: readers wait by themselves for what is not there yet.
Result<> Mounts::adopt(Mount& mount) {
  const proto::MountRequest& request = mount.record.request;
  std::string volume = volume_of(request);
  auto device = [&](const std::string& id) -> Result<Device> {
    HYDRANT_TRY(auto object, objects_.adopt({volume, id}, std::nullopt));
    // Of two mounts one may have the backing file itself, beside or without a blob file.
    object->cookie().keep();
    if (request.front == "fanotify") {
      auto* marks = marks_.now();
      auto marked = marks ? marks->find({volume, id}) : nullptr;
      return Device{.object = std::move(object), .marked = std::move(marked)};
    }
    auto at = blob_files_.find(object->key());
    return Device{.object = std::move(object), .blob = at == blob_files_.end() ? nullptr : at->second.lock()};
  };
  HYDRANT_TRY(mount.metadata, device(request.fsid));
  for (const std::string& id : request.devices) {
    HYDRANT_TRY(Device one, device(id));
    mount.devices.push_back(std::move(one));
  }
  auto found = std::ranges::count_if(mount.devices, [](const Device& each) { return each.marked != nullptr; });
  if (static_cast<size_t>(found) < mount.record.marked.size())
    return fail(Code::kGone, "nobody held the fanotify group that it is read under");
  return {};
}

// For some time nobody was there to be asked: the kernel may have read holes as zeros, and kept them. From here on it
// gets EIO, and forgets what it has, but for what is mapped.
void Mounts::deny_marked(const Mount& mount) {
  log::error("mount-tainted", {{"dir", mount.record.request.dir},
                               {"why",
                                "everything that held its fanotify group was killed; reads of what was not "
                                "cached may have seen zeros since"}});
  std::set<uint64_t> inodes(mount.record.marked.begin(), mount.record.marked.end());
  std::error_code error;
  for (std::filesystem::recursive_directory_iterator at(options_.cache, error), end; !error && at != end;
       at.increment(error)) {
    struct stat status {};
    if (::lstat(at->path().c_str(), &status) || !S_ISREG(status.st_mode) || !inodes.contains(status.st_ino)) continue;
    auto file = open_file(at->path(), O_RDONLY | O_NOFOLLOW);
    auto marks = file ? marks_.get() : fail(std::move(file).error());
    auto denied = marks ? (*marks)->deny(*file) : fail(std::move(marks).error());
    if (denied)
      inodes.erase(status.st_ino);
    else
      log::error("file-not-marked-again", {{"path", at->path().string()}, {"why", denied.error().what}});
  }
  if (!inodes.empty()) log::error("files-not-marked-again", {{"number", inodes.size()}});
  (void)forget_pages(mount.record.request.dir);
}

Result<proto::MountReply> Mounts::mount(const proto::MountRequest& asked, std::stop_token stop, const Report& report) {
  Instant begin = Clock::system().now();
  HYDRANT_TRY_VOID(check(asked));
  drop_vanished();

  proto::MountRequest request = asked;
  HYDRANT_TRY(Fd target, open_mount_point(asked));
  HYDRANT_TRY(request.dir, path_of(target));
  const std::string& dir = request.dir;
  HYDRANT_TRY(auto present, read_mounts());
  if (auto* there = find_mount(present, dir))
    return fail(Code::kBusy,
                dir + " is a mount point already (" + there->type + "): unmount it or take another directory");
  {
    std::lock_guard lock(mutex_);
    if (closed_) return fail(Code::kGone, "hydrantd is stopping");
    if (!mounts_.try_emplace(dir, std::make_shared<Mount>()).second)
      return fail(Code::kBusy, dir + " is being mounted or unmounted by another request");
  }
  Reservation reservation(*this, dir);

  if (request.front.empty() || request.front == "auto") request.front = options_.front;
  front::MarkedFiles* marks = nullptr;
  if (request.front == "fanotify") {
    HYDRANT_TRY(marks, marks_.get());
  } else {
    request.front.clear();  // a hydrantd before the other one reads the same record
  }

  HYDRANT_TRY(Mount mount, prepare(request, stop));
  ErofsSource source;
  source.files_only = marks != nullptr;
  if (request.read_ahead_kb) source.read_ahead_kb = request.read_ahead_kb;
  // Without a digest there is nothing to prove, and the primary may hold all the data: it comes on demand, as it did to
  // the kernel. But fanotify does not tell of metadata that are read: then the whole of it comes first.
  if (request.meta_digest.empty() && !marks) {
    HYDRANT_TRY(source.primary, open_device(mount.metadata, nullptr));
  } else {
    HYDRANT_TRY(source.primary, complete_metadata(*mount.metadata.object, request.meta_digest, stop, report));
  }
  for (Device& device : mount.devices) {
    HYDRANT_TRY(Fd file, open_device(device, marks));
    if (device.marked) {
      struct stat status {};
      if (::fstat(file.get(), &status)) return fail_sys(errno, "stat of a backing file");
      mount.record.marked.push_back(status.st_ino);
    }
    source.devices.push_back(std::move(file));
  }
  HYDRANT_TRY(ErofsMount erofs, make_erofs(source, mount, !request.meta_digest.empty(), marks));
  if (!request.file.empty()) {
    HYDRANT_TRY(erofs.mount, mount_of_file(erofs.mount, request.file));
  }

  mount.record = {.request = request,
                  .device = erofs.device,
                  .boot_id = boot_id_,
                  .mounted_at = ::time(nullptr),
                  .marked = std::move(mount.record.marked)};
  // The record first: a death in between leaves a record of nothing, which the next start drops. A mount without a
  // record would be nobody's.
  HYDRANT_TRY_VOID(save_record(options_.records, mount.record));
  if (auto attached = attach_mount(erofs.mount, target); !attached) {
    delete_record(options_.records, dir);
    return fail(std::move(attached.error()).in(dir));
  }
  size_t lazy =
      std::count_if(mount.devices.begin(), mount.devices.end(), [](auto& each) { return each.blob || each.marked; });
  size_t devices = mount.devices.size();
  reservation.keep(std::move(mount));
  if (asked.pin)
    if (auto pinned = pins_.add(request); !pinned) {
      (void)umount(dir, true);
      return fail(std::move(pinned.error()).in("pin"));
    }
  auto ms = std::chrono::duration_cast<std::chrono::milliseconds>(Clock::system().now() - begin).count();
  log::info("mounted", {{"dir", dir}, {"source", request.source}, {"devices", devices}, {"lazy", lazy}, {"ms", ms}});
  return proto::MountReply{.dir = dir, .fsid = request.fsid, .ready_ms = static_cast<uint64_t>(ms)};
}

Result<Mounts::Mount> Mounts::prepare(proto::MountRequest& request, std::stop_token stop) {
  Mount mount;
  std::string volume = volume_of(request);
  Patience patience{Deadline::after(options_.open_limit), stop};
  // The engine does not say why a lookup failed, as the kernel does not; of what another daemon serves it is the name.
  auto named = [&](Result<std::shared_ptr<Object>> object) -> Result<std::shared_ptr<Object>> {
    if (object || !request.meta_digest.empty() || object.error().sys != ENOBUFS) return object;
    object.error().code = Code::kNotFound;
    return fail(std::move(object.error()).in("does the user daemon know it?"));
  };
  HYDRANT_TRY(mount.metadata.object, named(objects_.use({volume, request.fsid}, patience)));
  if (request.meta_digest.empty()) HYDRANT_TRY_VOID(take_devices_from_image(request, *mount.metadata.object, stop));
  for (size_t i = 0; i < request.devices.size(); ++i) {
    const auto proof = proof_of(request, i);
    auto object = named(objects_.use({volume, request.devices[i]}, patience, proof));
    if (!object && proof && object.error().sys == ENOBUFS)
      object.error().what += "; when it cannot be proven by its Merkle root, hydrantd's log says why";
    if (!object) return fail(std::move(object).error());
    mount.devices.push_back({.object = std::move(*object)});
  }
  return mount;
}

// An image that nobody described: its device table names the devices, or says how many names were to be given. The
// blocks that the kernel needs to mount are fetched on the way, so that the mount itself waits for no user daemon.
Result<> Mounts::take_devices_from_image(proto::MountRequest& request, const Object& primary, std::stop_token stop) {
  std::string name = "object " + request.fsid;
  uint64_t size = primary.cookie().size();
  auto read = [&](ByteRange range) -> Result<Buffer> {
    ByteRange blocks{range.begin / 4096 * 4096, std::min(size, (range.end + 4095) / 4096 * 4096)};
    if (!primary.cookie().present(blocks))
      HYDRANT_TRY_VOID(ensure(primary, blocks, {Deadline::after(options_.supply_limit), stop}));
    Buffer bytes(range.end - range.begin);
    int64_t got = primary.cookie().read(bytes, range.begin);
    if (got == -ESTALE) {  // discarded just now
      HYDRANT_TRY_VOID(ensure(primary, blocks, {Deadline::after(options_.supply_limit), stop}));
      got = primary.cookie().read(bytes, range.begin);
    }
    if (got != static_cast<int64_t>(bytes.size())) return fail_sys(got < 0 ? static_cast<int>(-got) : EIO, name);
    return bytes;
  };
  constexpr ByteRange kSuperblock{proto::erofs::kSuperblockAt,
                                  proto::erofs::kSuperblockAt + sizeof(proto::erofs::Superblock)};
  if (size < kSuperblock.end) return fail(Code::kCorrupt, name + ": not an EROFS image: too short");
  HYDRANT_TRY(Buffer superblock, read(kSuperblock));
  auto outline = proto::erofs::decode_outline(superblock, size);
  if (!outline) return fail(std::move(outline.error()).in(name));
  if (!outline->root.empty()) HYDRANT_TRY_VOID(read(outline->root));

  size_t wanted = outline->devices();
  if (wanted > kMaxDevices) return fail(Code::kUnsupported, name + ": more than 4096 devices");
  if (wanted == request.devices.size()) return {};
  if (!request.devices.empty())
    return fail(Code::kInvalid, name + ": the image has " + std::to_string(wanted) + " devices, but " +
                                    std::to_string(request.devices.size()) + " were given");
  HYDRANT_TRY(Buffer table, read(outline->device_table));
  auto tags = proto::erofs::decode_device_tags(table);
  if (!tags) return fail(std::move(tags.error()).in(name));
  for (auto& tag : *tags)
    if (auto usable = check_id(tag, 255, "device"); !usable) return fail(std::move(usable.error()).in(name));
  request.devices = std::move(*tags);
  return {};
}

// Fetches and hashes step by step, so that the hash costs no second pass over a cold file.
Result<Fd> Mounts::complete_metadata(const Object& object, const std::string& digest, std::stop_token stop,
                                     const Report& report) {
  uint64_t size = object.cookie().size();
  std::string name = "metadata " + object.key().id;
  if (size == 0 || size > kMetadataLimit)
    return fail(Code::kCorrupt, name + " has an impossible size: " + std::to_string(size) + " bytes");
  HYDRANT_TRY(Fd file, object.cookie().backing_file());
  Sha256 hash;
  Buffer piece(128 << 10);
  for (uint64_t at = 0; at < size; at += kMetadataStep) {
    ByteRange step{at, std::min(size, at + kMetadataStep)};
    if (!object.cookie().present(step))
      HYDRANT_TRY_VOID(ensure(object, step, {Deadline::after(options_.supply_limit), stop}));
    for (uint64_t done = step.begin; !digest.empty() && done < step.end;) {
      MutableBytes part = MutableBytes(piece).first(std::min<uint64_t>(piece.size(), step.end - done));
      if (auto read = pread_exact(file.get(), part, done); !read) return fail(std::move(read.error()).in(name));
      hash.update(part);
      done += part.size();
    }
    if (report) report({.phase = "metadata", .done = step.end, .total = size, .layers = 0});
  }
  if (!digest.empty()) {
    HYDRANT_TRY(Digest expected, Digest::parse(digest));
    if (Digest found = hash.finish(); found != expected) {
      object.cookie().invalidate();  // or the next mount would find the same bytes present
      return fail(Code::kCorrupt, name + " does not match its digest: expected " + expected.text() + ", found " +
                                      found.text() + "; what was cached is dropped, mount again to fetch it anew");
    }
  }
  return file;
}

std::map<ObjectKey, proto::MerkleProof> recorded_proofs(const std::string& records) {
  std::map<ObjectKey, proto::MerkleProof> out;
  for (const MountRecord& record : load_records(records))
    for (size_t i = 0; i < record.request.devices.size(); ++i)
      if (auto proof = proof_of(record.request, i))
        out.emplace(ObjectKey{volume_of(record.request), record.request.devices[i]}, *proof);
  return out;
}

// Under marks the mount is one that a successor can find the end of, and nothing is read through it unseen.
// `ours`: all data of its files are on the devices.
Result<ErofsMount> Mounts::make_erofs(const ErofsSource& source, const Mount& mount, bool ours,
                                      front::MarkedFiles* marks) {
  constexpr int kAttempts = 5;
  if (!marks) return make_erofs_mount(source);
  for (int attempt = 0; attempt < kAttempts; ++attempt) {
    HYDRANT_TRY(ErofsMount erofs, make_erofs_mount(source));
    if (erofs.super.empty()) continue;
    bool all = ours && !mount.devices.empty();
    for (const Device& device : mount.devices) {
      if (device.marked) HYDRANT_TRY_VOID(marks->used_by(device.marked, erofs.super));
      all = all && device.marked && front::MarkedFiles::marked(*device.marked);
    }
    HYDRANT_TRY_VOID(self_test(erofs.mount, *marks, all));
    return erofs;
  }
  return fail(Code::kBusy,
              "other programs mount EROFS all the time, so that ours cannot be told from theirs: try again");
}

// A complete and durable object needs nobody any more: EROFS reads its file directly.
Result<Fd> Mounts::open_device(Device& device, front::MarkedFiles* marks) {
  cachefiles::Cookie& cookie = device.object->cookie();
  const ObjectKey& key = device.object->key();
  if (cookie.size() % 4096 == 0 && cookie.complete()) {
    HYDRANT_TRY(Fd file, cookie.backing_file());
    if (cookie.complete()) return file;  // no data was discarded just before
  }
  // The file keeps the object, not only its cookie, for as long as the kernel has it open.
  std::shared_ptr<cachefiles::Cookie> keep(device.object, &cookie);
  if (marks) {
    HYDRANT_TRY(Fd file, cookie.backing_file());
    auto marked = marks->mark(std::move(keep), file, {key.volume, key.id});
    if (!marked && marked.error().code == Code::kUnsupported)
      marked.error().what += "; use --front fuse, or a --root on ext4, xfs or btrfs";
    if (!marked) return fail(std::move(marked).error());
    device.marked = std::move(*marked);
    return file;
  }

  {
    std::lock_guard lock(blob_mutex_);
    std::erase_if(blob_files_, [](auto& each) { return each.second.expired(); });
    device.blob = blob_files_[key].lock();
    if (!device.blob) {
      // Numbered: the file of an earlier mount may still be open in the kernel.
      std::string name = key.id.substr(0, 200) + "." + std::to_string(++blob_sequence_);
      HYDRANT_TRY_VOID(blobs_.add(name, std::move(keep), cookie.size(), {key.volume, key.id}));
      device.blob = std::make_shared<BlobFile>(blobs_, name);
      blob_files_[key] = device.blob;
    }
  }
  return blobs_.open(device.blob->name());
}

}  // namespace hydrant::daemon
