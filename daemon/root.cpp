#include "daemon/root.h"

#include <linux/magic.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <sys/xattr.h>

#include <cerrno>

#include "base/bytes.h"
#include "base/file.h"
#include "proto/object_id.h"

namespace hydrant::daemon {

namespace {

constexpr std::string_view kWayOut = "; keep the cache on ext4, xfs or btrfs (--root DIR)";

Result<> refuse(const std::string& path, const std::string& why) {
  return fail(Code::kUnsupported, path + " cannot hold the cache: " + why + std::string(kWayOut));
}

// A device whose size nobody knows yet is a file of the nominal size. ext4 with blocks of 1 or 2 KiB holds none such.
Result<> check_nominal_size(const std::string& path, const struct statfs& status, const Fd& file) {
  if (::ftruncate(file.get(), static_cast<off_t>(proto::kNominalSize)) == 0) return {};
  if (errno != EFBIG) return fail_sys(errno, "make a sparse file under " + path);
  std::string kind = static_cast<uint32_t>(status.f_type) == EXT4_SUPER_MAGIC ? "ext4" : "its file system";
  return fail(Code::kUnsupported, path + " cannot hold the cache: " + kind + " with blocks of " +
                                      std::to_string(status.f_bsize) + " bytes holds no sparse file of " +
                                      std::to_string(proto::kNominalSize >> 40) +
                                      " TiB; keep the cache on a file system with blocks of 4096 bytes (mkfs -b 4096, "
                                      "or --root DIR)");
}

Result<> check_file_system(const std::string& path) {
  struct statfs status {};
  if (::statfs(path.c_str(), &status)) return fail_sys(errno, "statfs " + path);
  switch (static_cast<uint32_t>(status.f_type)) {
    case TMPFS_MAGIC: return refuse(path, "it is on tmpfs");
    case RAMFS_MAGIC: return refuse(path, "it is on ramfs");
    case OVERLAYFS_SUPER_MAGIC: return refuse(path, "it is on overlayfs");
    default: break;
  }
  HYDRANT_TRY(Fd file, open_file(path, O_TMPFILE | O_RDWR));
  if (::fsetxattr(file.get(), "user.hydrant.probe", "1", 1, 0))
    return refuse(path, "its file system keeps no user xattrs");
  constexpr off_t kData = 1 << 20;
  HYDRANT_TRY_VOID(pwrite_all(file.get(), as_bytes("x"), kData));
  if (::lseek(file.get(), 0, SEEK_DATA) != kData) return refuse(path, "its file system does not report holes");
  return check_nominal_size(path, status, file);
}

}  // namespace

Result<Root> Root::open(const std::string& path) {
  if (path.empty() || path[0] != '/') return fail(Code::kInvalid, "--root must be an absolute path: \"" + path + "\"");
  HYDRANT_TRY_VOID(make_directories(path));
  HYDRANT_TRY_VOID(check_file_system(path));
  return open_state(path);
}

Result<Root> Root::open_state(const std::string& path) {
  HYDRANT_TRY_VOID(make_directories(path + "/run"));
  HYDRANT_TRY(Fd lock, open_file(path + "/run/hydrantd.lock", O_RDWR | O_CREAT));
  if (::flock(lock.get(), LOCK_EX | LOCK_NB)) {
    if (errno != EWOULDBLOCK) return fail_sys(errno, "lock " + path);
    auto pid = read_file(path + "/run/hydrantd.lock", 64);
    return fail(Code::kBusy, "another hydrantd" + (pid && !pid->empty() ? " (pid " + *pid + ")" : std::string()) +
                                 " runs on " + path + ": use it, stop it, or take another --root");
  }
  std::string pid = std::to_string(::getpid());
  if (::ftruncate(lock.get(), 0)) return fail_sys(errno, "truncate the lock file");
  HYDRANT_TRY_VOID(pwrite_all(lock.get(), as_bytes(pid), 0));
  HYDRANT_TRY_VOID(make_directories(path + "/mounts"));
  // Only made, not looked at: a predecessor's blob mount that nobody serves yet would let us wait for ourselves.
  if (std::string blobs = path + "/blobs"; ::mkdir(blobs.c_str(), 0700) && errno != EEXIST)
    return fail_sys(errno, "mkdir " + blobs);
  return Root(path, std::move(lock));
}

uid_t Root::user_daemon() const {
  struct stat status {};
  return ::lstat((path_ + "/fetch").c_str(), &status) == 0 && S_ISDIR(status.st_mode) ? status.st_uid : 0;
}

}  // namespace hydrant::daemon
