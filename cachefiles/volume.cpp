// Volumes on disk (spec 7.1): a labelled directory and its fan-out.
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/xattr.h>

#include "base/log.h"
#include "cachefiles/cache.h"
#include "cachefiles/engine_impl.h"
#include "cachefiles/trace.h"
#include "proto/cachefiles_label.h"
#include "proto/cachefiles_name.h"

namespace hydrant::cachefiles {

std::shared_ptr<CacheVolume> Cache::obtain_volume(const std::string& key, const Buffer& coherency) {
  std::lock_guard lock(volumes_mutex_);
  if (auto found = volumes_.find(key); found != volumes_.end()) return found->second;
  auto volume = std::make_shared<CacheVolume>(*this, key, coherency);
  if (int err = volume->go_online(cache_directory_.get())) {
    log::warn("cachefiles.volume_unusable", {{"volume", key}, {"errno", -err}});
    return nullptr;
  }
  volumes_.emplace(key, volume);
  return volume;
}

void Cache::release_volume(const std::string& key) {
  std::lock_guard lock(volumes_mutex_);
  auto found = volumes_.find(key);
  // A consumer that acquired the key again holds the volume through its objects.
  if (found == volumes_.end() || found->second.use_count() > 1) return;
  found->second->go_offline();
  volumes_.erase(found);
}

int CacheVolume::go_online(int cache_directory) {
  hash_ = proto::hash_volume(key_);
  std::string name = proto::volume_directory(key_);
  for (int attempt = 0;; ++attempt) {
    bool created = false;
    if (int err = cache_.obtain_directory(cache_directory, name, &directory_, &id_, &created)) return err;
    int err = created ? write_label() : check_label();
    if (!err) break;
    unmark();
    if (err != -ESTALE || attempt > 0) return err;
    struct stat stat;
    if (::fstatat(cache_directory, name.c_str(), &stat, AT_SYMLINK_NOFOLLOW) != 0) return -errno;
    if ((err = cache_.bury(cache_directory, name, stat, "volume_weird"))) return err;
  }
  fanouts_.resize(256);
  for (unsigned i = 0; i < 256; ++i) {
    bool created;
    int err =
        cache_.obtain_directory(directory_.get(), proto::fanout_directory(uint8_t(i)), nullptr, &fanouts_[i], &created);
    if (!err) continue;
    fanouts_.resize(i);
    unmark();
    return err;
  }
  return 0;
}

void CacheVolume::go_offline() {
  write_label();
  unmark();
}

void CacheVolume::unmark() {
  for (auto& fanout : fanouts_) cache_.in_use().unmark(fanout);
  fanouts_.clear();
  cache_.in_use().unmark(id_);
  directory_.reset();
}

int CacheVolume::check_label() {
  Buffer label(proto::kVolumeLabelSize + coherency_.size());
  int err = inject_read();
  ssize_t got = -1;
  if (!err) {
    got = ::fgetxattr(directory_.get(), proto::kLabelName, label.data(), label.size());
    if (got < 0) err = -errno;
  }
  if (err == -EIO) cache_.io_error("read a volume label", err, {.inode = id_.inode});
  // Who made the directory ended before it wrote the label, or could not.
  if ((err == -ENODATA || err == -ERANGE) && cache_.engine().options().replace_unlabelled) return -ESTALE;
  if (err) return trace::vfs_error("getxattr", err, {.inode = id_.inode});
  label.resize(static_cast<size_t>(got));
  auto verdict = proto::check_volume_label(label, coherency_);
  trace::event(trace::Point::kVolCoherency,
               {{"volume", key_}, {"verdict", proto::to_string(verdict)}, {"inode", id_.inode}});
  return verdict == proto::Coherency::kOk ? 0 : -ESTALE;
}

int CacheVolume::write_label() {
  auto label = proto::encode_volume_label(coherency_);
  int err = inject_write();
  if (!err && ::fsetxattr(directory_.get(), proto::kLabelName, label.data(), label.size(), 0) != 0) err = -errno;
  if (err && err != -ENOMEM) cache_.io_error("write a volume label", err, {.inode = id_.inode});
  return trace::vfs_error("setxattr", err, {.inode = id_.inode});
}

Result<Fd> CacheVolume::open_fanout(uint8_t index) {
  std::string name = proto::fanout_directory(index);
  std::lock_guard lock(fanouts_mutex_);
  if (fanouts_.size() != 256) return fail(Code::kGone, "volume " + key_ + " is off line");
  Fd fd(::openat(directory_.get(), name.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  if (fd) return fd;
  if (errno != ENOENT) return fail_sys(errno, name);
  // A culling daemon removes empty fan-out directories without asking.
  cache_.in_use().unmark(fanouts_[index]);
  bool created;
  int err = cache_.obtain_directory(directory_.get(), name, &fd, &fanouts_[index], &created);
  if (err) return fail_sys(-err, name);
  return fd;
}

}  // namespace hydrant::cachefiles
