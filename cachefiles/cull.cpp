// The commands `cull` and `inuse`, and burying: how names leave the cache (spec 3.5, 8.4).
#include <fcntl.h>
#include <sys/stat.h>

#include <cstdio>
#include <ctime>

#include "base/log.h"
#include "cachefiles/backing_file.h"
#include "cachefiles/cache.h"
#include "cachefiles/engine_impl.h"
#include "cachefiles/trace.h"

namespace hydrant::cachefiles {
namespace {

// cache/, I…, @xx: nothing of ours lies deeper.
constexpr int kDepthLimit = 8;
constexpr int kNameClashLimit = 1000;

}  // namespace

bool Cache::inside_cache(int directory) const {
  Fd at(::openat(directory, ".", O_PATH | O_DIRECTORY | O_CLOEXEC));
  for (int depth = 0; at && depth < kDepthLimit; ++depth) {
    struct stat stat;
    if (::fstat(at.get(), &stat) != 0) return false;
    if (InodeId::of(stat) == cache_id_) return true;
    at = Fd(::openat(at.get(), "..", O_PATH | O_DIRECTORY | O_CLOEXEC));
  }
  return false;
}

int Cache::find_victim(std::string_view name, const Caller& caller, Fd* directory, struct stat* entry) {
  if (name.find('/') != name.npos) return -EINVAL;
  if (!has(kReady) || has(kDead)) return -EIO;
  struct stat stat;
  if (::fstatat(caller.cwd, "", &stat, AT_EMPTY_PATH) != 0 || !S_ISDIR(stat.st_mode)) return -ENOTDIR;
  if (stat.st_nlink == 0) return -ESTALE;  // the directory was removed under the caller
  *directory = Fd(::openat(caller.cwd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!*directory) return errno == ENOENT ? -ESTALE : -EIO;
  if (!inside_cache(directory->get())) return -EINVAL;
  if (name.empty() || name == "." || name == ".." || name.size() > 255) return -EIO;
  int err = inject_read();
  if (!err && ::fstatat(directory->get(), std::string(name).c_str(), entry, AT_SYMLINK_NOFOLLOW) != 0) err = -errno;
  if (err && err != -ENOENT) trace::vfs_error("lookup", err);
  if (err == -EIO) io_error("lookup", err);
  if (err == -ENOENT || err == -ENOMEM || err == 0) return err;
  return -EIO;
}

int Cache::inuse(std::string_view name, const Caller& caller) {
  Fd directory;
  struct stat entry;
  if (int err = find_victim(name, caller, &directory, &entry)) return err;
  return in_use().marked(InodeId::of(entry)) ? -EBUSY : 0;
}

int Cache::cull(std::string_view name, const Caller& caller) {
  Fd directory;
  struct stat entry;
  if (int err = find_victim(name, caller, &directory, &entry)) return err;
  InodeId id = InodeId::of(entry);
  if (!in_use().mark(id)) return -EBUSY;
  int err = bury(directory.get(), std::string(name), entry, "was_culled");
  in_use().unmark(id);
  if (err == 0) ++engine_.counters().culled;
  if (err == -ENOENT) return -ESTALE;
  return err == 0 || err == -ENOMEM ? err : -EIO;
}

int Cache::bury(int directory, const std::string& name, const struct stat& entry, const char* why) {
  trace::event(S_ISDIR(entry.st_mode) ? trace::Point::kRename : trace::Point::kUnlink,
               {{"name", name}, {"inode", entry.st_ino}, {"reason", why}});
  if (S_ISDIR(entry.st_mode)) return move_to_graveyard(directory, name);
  int err = inject_remove();
  if (!err && S_ISREG(entry.st_mode) && presence() == Presence::kContentMap) {
    Fd file(::openat(directory, name.c_str(), O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK));
    if (file) delete_map_of(file.get(), maps_directory_);
  }
  if (!err && ::unlinkat(directory, name.c_str(), 0) != 0) err = -errno;
  if (err == -EIO) io_error("unlink", err, {.inode = entry.st_ino});
  return trace::vfs_error("unlink", err, {.inode = entry.st_ino});
}

int Cache::move_to_graveyard(int directory, const std::string& name) {
  for (int attempt = 0; attempt < kNameClashLimit; ++attempt) {
    char grave[32];
    std::snprintf(grave, sizeof grave, "%08x%08x", static_cast<unsigned>(::time(nullptr)),
                  graveyard_counter_.fetch_add(1));
    int err = inject_read();
    if (!err && ::renameat2(directory, name.c_str(), graveyard_.get(), grave, RENAME_NOREPLACE) != 0) err = -errno;
    if (err == -EEXIST) continue;
    if (err == 0 || err == -ENOENT) return 0;
    trace::vfs_error("rename", err);
    if (err == -ENOMEM) return err;
    // The kernel reports success here, and the cache dies.
    io_error("rename to the graveyard", err);
    return 0;
  }
  return -EIO;
}

}  // namespace hydrant::cachefiles
