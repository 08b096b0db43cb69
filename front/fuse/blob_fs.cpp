#include "front/fuse/blob_fs.h"

#include <sys/mount.h>

#include <cerrno>

#include "base/file.h"
#include "base/fs_context.h"
#include "base/log.h"
#include "base/mount_info.h"
#include "front/fuse/server.h"

namespace hydrant::front {

namespace {

// What mountinfo shows for ours: type "fuse.hydrant-blobs".
constexpr std::string_view kSubtype = "hydrant-blobs";

// A dead predecessor's mount answers every call with ENOTCONN; a stranger's stays.
Result<> clear_mount_point(const std::string& path) {
  for (;;) {
    HYDRANT_TRY(auto mounts, read_mounts());
    const MountInfo* mount = find_mount(mounts, path);
    if (!mount) return {};
    if (mount->type != "fuse." + std::string(kSubtype))
      return fail(Code::kBusy, path + " is the mount point of something else (" + mount->type + "); unmount it first");
    if (::umount2(path.c_str(), MNT_DETACH)) return fail_sys(errno, "unmount the stale " + path);
    log::info("stale-blob-mount-removed", {{"path", path}});
  }
}

Result<Fd> mount_device(const Fd& device, const std::string& path) {
  HYDRANT_TRY(FsContext context, FsContext::open("fuse"));
  HYDRANT_TRY_VOID(context.set("source", "hydrant"));
  HYDRANT_TRY_VOID(context.set("subtype", std::string(kSubtype)));
  HYDRANT_TRY_VOID(context.set("fd", std::to_string(device.get())));
  HYDRANT_TRY_VOID(context.set("rootmode", "40000"));
  HYDRANT_TRY_VOID(context.set("user_id", "0"));
  HYDRANT_TRY_VOID(context.set("group_id", "0"));
  HYDRANT_TRY_VOID(context.set("max_read", std::to_string(kMaxRead)));
  HYDRANT_TRY_VOID(context.set_flag("allow_other"));
  HYDRANT_TRY(Fd mount, context.create(MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC));
  HYDRANT_TRY(Fd directory, open_file(path, O_PATH | O_DIRECTORY));
  HYDRANT_TRY_VOID(attach_mount(mount, directory));
  return mount;
}

Result<> check(const BlobFsOptions& options) {
  if (options.threads < 1 || options.threads > 64) return fail(Code::kInvalid, "fuse threads must be 1..64");
  if (options.read_limit < std::chrono::milliseconds(1) || options.read_limit > std::chrono::hours(1))
    return fail(Code::kInvalid, "the read limit must be 1 ms .. 1 h");
  return {};
}

}  // namespace

BlobFs::BlobFs(std::shared_ptr<Server> server) : server_(std::move(server)) {}

Result<std::unique_ptr<BlobFs>> BlobFs::create(BlobFsOptions options) {
  HYDRANT_TRY_VOID(check(options));
  HYDRANT_TRY_VOID(clear_mount_point(options.mount_point));

  Fd device(::open("/dev/fuse", O_RDWR | O_CLOEXEC));
  if (!device) {
    if (errno == ENOENT || errno == ENODEV)
      return fail(Code::kUnsupported, "no /dev/fuse here: load the fuse module or pass the device into the container");
    return fail_sys(errno, "open /dev/fuse");
  }
  HYDRANT_TRY(BlobJournal journal, BlobJournal::create());
  HYDRANT_TRY(Fd mount, mount_device(device, options.mount_point));
  auto server = std::make_shared<Server>(std::move(device), options.read_limit);
  server->table().write_to(std::move(journal));
  server->mount = std::move(mount);
  server->mount_point = std::move(options.mount_point);
  server->start(options.threads);
  return std::unique_ptr<BlobFs>(new BlobFs(std::move(server)));
}

Result<std::unique_ptr<BlobFs>> BlobFs::take_over(BlobFsOptions options, Held held, const CookieOf& cookie_of) {
  HYDRANT_TRY_VOID(check(options));
  HYDRANT_TRY(BlobJournal journal, BlobJournal::open(std::move(held.journal)));
  HYDRANT_TRY(proto::Handover handover, journal.read());
  auto server = std::make_shared<Server>(std::move(held.device), options.read_limit);
  for (const proto::HandedBlob& blob : handover.blobs) {
    HYDRANT_TRY(auto cookie, cookie_of(blob));
    server->table().adopt(blob, std::move(cookie));
  }
  server->table().write_to(std::move(journal));
  HYDRANT_TRY_VOID(server->ask_again());
  server->mount = std::move(held.mount);
  server->mount_point = std::move(options.mount_point);
  server->start(options.threads);
  return std::unique_ptr<BlobFs>(new BlobFs(std::move(server)));
}

Held BlobFs::held() const {
  return {.device = server_->device().duplicate(),
          .mount = server_->mount.duplicate(),
          .journal = server_->table().journal()->memory().duplicate()};
}

BlobFs::~BlobFs() {
  // The threads answer the kernel's last requests (RELEASE, FORGET, DESTROY) of an idle file system's end.
  server_->mount.reset();
  if (::umount2(server_->mount_point.c_str(), MNT_DETACH))
    log::warn("blob-unmount-failed", {{"path", server_->mount_point}, {"errno", errno}});
  server_->stop();
}

Result<> BlobFs::add(const std::string& name, std::shared_ptr<cachefiles::Cookie> cookie, uint64_t size,
                     const BlobOrigin& origin) {
  return server_->table().add(name, std::move(cookie), size, origin.volume, origin.id);
}

Result<Fd> BlobFs::open(const std::string& name) {
  Fd fd(::openat(server_->mount.get(), name.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW));
  if (!fd) return fail_sys(errno, "open blob " + name);
  return fd;
}

std::vector<Touch> BlobFs::touches(const std::string& name) const { return server_->table().touches(name); }

void BlobFs::remove(const std::string& name) {
  if (server_->table().remove(name)) server_->forget_name(name);
}

BlobFsStat BlobFs::stat() const { return server_->stat(); }

}  // namespace hydrant::front
