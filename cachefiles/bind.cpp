// Going online and offline (spec 3.4, 4, 7.9).
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/xattr.h>

#include "base/log.h"
#include "cachefiles/cache.h"
#include "cachefiles/cookie.h"
#include "cachefiles/engine_impl.h"
#include "cachefiles/object.h"
#include "cachefiles/trace.h"

namespace hydrant::cachefiles {
namespace {

constexpr uint64_t kPageSize = 4096;
// docs/formats/content-map.md.
constexpr char kCleanMark[] = "maps/clean";

std::string path_of(int fd) { return "/proc/self/fd/" + std::to_string(fd); }

}  // namespace

int Cache::bind(std::string_view arguments, const Caller& caller) {
  for (const Percent* percent : {&file_percent_, &block_percent_})
    if (!(percent->stop < percent->cull && percent->cull < percent->run && percent->run < 100)) return -ERANGE;
  if (directory_.empty()) return -EINVAL;
  if (has(kReady)) return -EBUSY;
  if (arguments == "ondemand")
    flags_.fetch_or(kOnDemand);
  else if (!arguments.empty())
    return -EINVAL;
  if (tag_.empty()) tag_ = "CacheFiles";
  int err = go_online(caller);
  if (err) {
    log::warn("cachefiles.bind_failed", {{"dir", directory_}, {"errno", -err}});
    go_offline();
  }
  return err;
}

int Cache::go_online(const Caller& caller) {
  // O_DIRECTORY with O_NOFOLLOW refuses a symbolic link with ENOTDIR, and follows one that ends in '/'.
  root_ = Fd(::openat(caller.cwd, directory_.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  if (!root_) return -errno;
  if (int err = check_file_system()) return err;
  struct statfs stats;
  if (int err = disk().statfs(root_.get(), &stats)) return err;
  if (stats.f_bsize <= 0) return -ERANGE;
  if (static_cast<uint64_t>(stats.f_bsize) > kPageSize) return -EOPNOTSUPP;
  block_size_ = static_cast<uint64_t>(stats.f_bsize);
  compute_thresholds(stats);

  bool created;
  int err = obtain_directory(root_.get(), "cache", &cache_directory_, &cache_id_, &created);
  if (err) return err;
  cache_marked_ = true;
  // Marks live in the memory of one engine; this lock keeps the engines of other processes out.
  if (::flock(cache_directory_.get(), LOCK_EX | LOCK_NB) != 0) return errno == EWOULDBLOCK ? -EBUSY : -errno;
  err = obtain_directory(root_.get(), "graveyard", &graveyard_, &graveyard_id_, &created);
  if (err) return err;
  graveyard_marked_ = true;
  maps_directory_ = path_of(root_.get()) + "/maps";
  if (presence() == Presence::kContentMap)
    if ((err = take_clean_mark())) return err;

  flags_.fetch_or(kReady);
  log::info("cachefiles.registered",
            {{"tag", tag_}, {"dir", directory_}, {"mode", has(kOnDemand) ? "ondemand" : "original"}});
  check_space(0, 0, Reason::kNone);
  return 0;
}

// The mark stands in maps/ while nobody works there: who finds it, takes it away before he begins.
int Cache::take_clean_mark() {
  const bool fresh = ::mkdirat(root_.get(), "maps", 0700) == 0;
  if (!fresh && errno != EEXIST) return -errno;
  const bool marked = ::unlinkat(root_.get(), kCleanMark, 0) == 0;
  if (!marked && errno != ENOENT) return -errno;
  was_clean_ = fresh || marked;
  if (!was_clean_) {
    log::info("cachefiles.unclean", {{"dir", directory_}});
    if (int err = engine_.options().verify ? doubt_maps(maps_directory_) : 0) return err;
  }
  if (!marked) return 0;
  Fd maps(::openat(root_.get(), "maps", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  return maps && ::fsync(maps.get()) == 0 ? 0 : -errno;
}

// After everything else is on the disk.
void Cache::put_clean_mark() {
  if (presence() != Presence::kContentMap || broken_.load()) return;
  Fd mark(::openat(root_.get(), kCleanMark, O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
  Fd maps(::openat(root_.get(), "maps", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!mark || !maps || ::fsync(mark.get()) != 0 || ::fsync(maps.get()) != 0)
    log::warn("cachefiles.no_clean_mark", {{"errno", errno}});
}

int Cache::check_file_system() {
  struct statvfs stats;
  bool read_only = ::fstatvfs(root_.get(), &stats) == 0 && (stats.f_flag & ST_RDONLY);
  char label;
  if (::fgetxattr(root_.get(), "user.CacheFiles.cache", &label, sizeof label) < 0 && errno == EOPNOTSUPP)
    return -EOPNOTSUPP;
  if (read_only) return -EROFS;
  Fd unnamed(::openat(root_.get(), ".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600));
  if (unnamed) return 0;
  if (errno == EROFS || errno == EACCES || errno == EPERM) return -errno;
  return errno == EOPNOTSUPP || errno == EISDIR || errno == EINVAL ? -EOPNOTSUPP : 0;
}

int Cache::obtain_directory(int parent, const std::string& name, Fd* out, InodeId* id, bool* created) {
  *created = false;
  struct stat stat;
  int err = inject_read();
  if (!err && ::fstatat(parent, name.c_str(), &stat, AT_SYMLINK_NOFOLLOW) != 0) err = -errno;
  if (err == -ENOENT) {
    if ((err = check_space(1, 0, Reason::kCreate))) return err;
    if (!(err = inject_write()) && ::mkdirat(parent, name.c_str(), 0700) != 0) err = -errno;
    if (err) return trace::vfs_error("mkdir", err);
    *created = true;
    if (::fstatat(parent, name.c_str(), &stat, AT_SYMLINK_NOFOLLOW) != 0) err = -errno;
    trace::event(trace::Point::kMkdir, {{"name", name}, {"inode", err ? 0 : stat.st_ino}, {"errno", -err}});
  }
  if (trace::vfs_error("lookup", err)) {
    if (err == -EIO) io_error("lookup", err);
    return err;
  }
  *id = InodeId::of(stat);
  if (!in_use().mark(*id)) return -EBUSY;
  err = S_ISDIR(stat.st_mode) ? 0 : -EIO;
  if (!err && out) {
    *out = Fd(::openat(parent, name.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
    if (!*out) err = -errno;
  }
  if (err) in_use().unmark(*id);
  return err;
}

void Cache::go_offline() {
  if (std::exchange(cache_marked_, false)) in_use().unmark(cache_id_);
  if (std::exchange(graveyard_marked_, false)) in_use().unmark(graveyard_id_);
  cache_directory_.reset();
  graveyard_.reset();
  root_.reset();
}

void Cache::kill() {
  flags_.fetch_or(kDead);
  if (!has(kOnDemand)) return;
  fail_all(requests_.flush());
  wake();
}

void Cache::channel_released() {
  on_wake({});
  kill();
  unpin();
}

void Cache::io_error(const char* what, int err, trace::Subject subject) {
  trace::event(trace::Point::kIoError,
               {{"object", subject.object}, {"inode", subject.inode}, {"operation", what}, {"errno", -err}});
  broken_.store(true);
  if (!(flags_.fetch_or(kDead) & kDead)) log::error("cachefiles.cache_dead", {{"operation", what}, {"errno", -err}});
  // The caller may hold a lock; completions run on a worker.
  submit([self = shared_from_this()] { self->kill(); });
}

void Cache::unpin() {
  if (pins_.fetch_sub(1) == 1) engine_.retire_cache(shared_from_this());
}

void Cache::unbind() {
  if (has(kReady)) {
    log::info("cachefiles.unregistering", {{"tag", tag_}});
    withdrawn_.store(true);
    // Lookups first: one that began may still add an object. Each ends soon, for its requests were flushed.
    lookups_.close(Deadline(Instant::max()));
    std::unique_lock lock(objects_mutex_);
    auto objects = objects_;
    lock.unlock();
    for (auto& object : objects) object->cookie().withdraw_from_cache(object);
    objects.clear();
    lock.lock();
    objects_gone_.wait(lock, [&] { return objects_.empty(); });
    lock.unlock();
    std::map<std::string, std::shared_ptr<CacheVolume>> volumes;
    {
      std::lock_guard volumes_lock(volumes_mutex_);
      volumes.swap(volumes_);
    }
    for (auto& [key, volume] : volumes) volume->go_offline();
    if (::syncfs(root_.get()) != 0) {
      log::error("cachefiles.sync_failed", {{"errno", errno}});
      trace::vfs_error("sync", -errno);
      broken_.store(true);
    }
    put_clean_mark();
  }
  go_offline();
}

void Cache::add_object(const std::shared_ptr<Object>& object) {
  std::lock_guard lock(objects_mutex_);
  objects_.insert(object);
}

void Cache::remove_object(const std::shared_ptr<Object>& object) {
  std::lock_guard lock(objects_mutex_);
  unsaved_.erase(object);
  objects_.erase(object);
  if (objects_.empty()) objects_gone_.notify_all();
}

void Cache::remember_unsaved(const std::shared_ptr<Object>& object) {
  std::lock_guard lock(objects_mutex_);
  if (objects_.contains(object)) unsaved_.insert(object);
}

void Cache::save_maps() {
  std::unique_lock lock(objects_mutex_);
  auto objects = std::move(unsaved_);
  unsaved_.clear();
  lock.unlock();
  for (auto& object : objects) object->save_map();
}

}  // namespace hydrant::cachefiles
