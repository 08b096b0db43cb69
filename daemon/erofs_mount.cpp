#include "daemon/erofs_mount.h"

#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <filesystem>
#include <mutex>
#include <span>

#include "base/bytes.h"
#include "base/file.h"
#include "base/fs_context.h"
#include "base/log.h"
#include "base/loop_device.h"

namespace hydrant::daemon {

namespace {

std::string path_of(const Fd& fd) { return "/proc/self/fd/" + std::to_string(fd.get()); }

std::vector<std::string> erofs_bdis() {
  std::vector<std::string> names;
  std::error_code error;
  for (std::filesystem::directory_iterator at("/sys/class/bdi", error), end; !error && at != end; at.increment(error))
    if (auto name = at->path().filename().string(); name.starts_with("erofs-")) names.push_back(std::move(name));
  std::sort(names.begin(), names.end());
  return names;
}

// Nothing ties a bdi to its mount, so it is the one that appeared. Should another process mount EROFS in the same
// moment, neither can be told from the other: then both keep the kernel's default, which is right if not best.
std::vector<std::string> new_bdis(const std::vector<std::string>& before) {
  auto after = erofs_bdis();
  std::vector<std::string> fresh;
  std::set_difference(after.begin(), after.end(), before.begin(), before.end(), std::back_inserter(fresh));
  return fresh;
}

void set_read_ahead(const std::vector<std::string>& fresh, unsigned kb) {
  std::string value = std::to_string(kb);
  if (fresh.size() == 1) {
    auto file = open_file("/sys/class/bdi/" + fresh[0] + "/read_ahead_kb", O_WRONLY);
    if (file && ::write(file->get(), value.data(), value.size()) == static_cast<ssize_t>(value.size())) return;
  }
  log::info("read-ahead-not-set", {{"wanted_kb", kb}, {"candidates", fresh.size()}});
}

Error refusal(Error error) {
  // The primary is looked up as a block device where file-backed mounts are not built in.
  if (error.sys == ENOTBLK)
    return Error{.code = Code::kUnsupported,
                 .what =
                     "this kernel cannot mount EROFS from files: that takes Linux 6.12 or later with "
                     "CONFIG_EROFS_FS_BACKED_BY_FILE, and a cache on ext4, xfs or btrfs (" +
                     error.what + ")",
                 .sys = error.sys};
  if (error.sys == EINVAL || error.sys == EUCLEAN || error.sys == EOPNOTSUPP) {
    // EROFS tells its reasons to the kernel's log only.
    error.code = Code::kCorrupt;
    error.what += "; the image or its number of devices does not suit this kernel, whose log says why (dmesg)";
  }
  return error;
}

struct Created {
  Fd mount;
  std::string loop;  // "major:minor" of the primary's loop device; empty: it is mounted from files
};

Result<Fd> create(const Fd& primary, std::span<const Fd> devices) {
  auto context = FsContext::open("erofs");
  if (!context) {
    if (context.error().code == Code::kUnsupported)
      return fail(Code::kUnsupported, "this kernel has no EROFS: load the erofs module (modprobe erofs)");
    return fail(std::move(context).error());
  }
  HYDRANT_TRY_VOID(context->set_flag("ro"));  // else a block device would have to be writable
  HYDRANT_TRY_VOID(context->set("source", path_of(primary)));
  for (const Fd& device : devices) HYDRANT_TRY_VOID(context->set("device", path_of(device)));
  auto mount = context->create(MOUNT_ATTR_RDONLY);
  if (!mount) return fail(refusal(std::move(mount).error()));
  return std::move(*mount);
}

std::string numbers(dev_t device) { return std::to_string(major(device)) + ":" + std::to_string(minor(device)); }

// The mount holds the loop devices from its creation on; a death before that lets go of them, too.
Result<Created> create_over_loops(const ErofsSource& source) {
  HYDRANT_TRY(Fd primary, attach_loop(source.primary));
  std::vector<Fd> devices;
  for (const Fd& file : source.devices) {
    HYDRANT_TRY(Fd device, attach_loop(file));
    devices.push_back(std::move(device));
  }
  struct stat status {};
  if (::fstat(primary.get(), &status)) return fail_sys(errno, "stat of a loop device");
  HYDRANT_TRY(Fd mount, create(primary, devices));
  return Created{std::move(mount), numbers(status.st_rdev)};
}

Result<Created> create(const ErofsSource& source) {
  auto mount = create(source.primary, source.devices);
  if (mount) return Created{std::move(*mount), {}};
  if (mount.error().sys != ENOTBLK || source.files_only) return fail(std::move(mount).error());
  auto looped = create_over_loops(source);
  if (!looped && looped.error().code == Code::kUnsupported)
    looped.error().what = mount.error().what + ", nor over loop devices: " + looped.error().what;
  return looped;
}

}  // namespace

Result<ErofsMount> make_erofs_mount(const ErofsSource& source) {
  static std::mutex one_at_a_time;  // so that the bdi that appears is ours
  std::lock_guard lock(one_at_a_time);
  auto before = erofs_bdis();
  HYDRANT_TRY(Created made, create(source));
  auto fresh = made.loop.empty() ? new_bdis(before) : std::vector{made.loop};
  set_read_ahead(fresh, source.read_ahead_kb);
  struct stat status {};
  if (::fstat(made.mount.get(), &status)) return fail_sys(errno, "stat of the new mount");
  return ErofsMount{.mount = std::move(made.mount),
                    .device = numbers(status.st_dev),
                    .super = fresh.size() == 1 ? fresh[0] : std::string()};
}

Result<ErofsBacking> probe_erofs(const std::string& directory) {
  // Super block at 1024; the root is an empty directory, an inode of 32 bytes with its entries inline. Layout of the
  // on-disk format: Documentation/filesystems/erofs.rst of the kernel.
  constexpr size_t kBlock = 4096, kSuper = 1024, kRootNode = 36, kRoot = kRootNode * 32;
  std::array<std::byte, kBlock> image{};
  auto put = [&image]<class T>(size_t at, T value) { store_le<T>(image.data() + at, value); };
  put(kSuper, uint32_t{0xE0F5E1E2});
  put(kSuper + 12, uint8_t{12});             // log2 of the block size
  put(kSuper + 14, uint16_t{kRootNode});     // root
  put(kSuper + 16, uint64_t{1});             // inodes
  put(kSuper + 36, uint32_t{1});             // blocks
  put(kRoot, uint16_t{2 << 1});              // compact inode, inline data
  put(kRoot + 4, uint16_t{S_IFDIR | 0700});  // mode
  put(kRoot + 6, uint16_t{2});               // links
  put(kRoot + 8, uint32_t{27});              // size: two entries of 12 bytes, names "." and ".."
  put(kRoot + 16, uint32_t{0xffffffff});     // no block of its own: the data are inline
  for (size_t entry = 0; entry < 2; ++entry) {
    size_t at = kRoot + 32 + entry * 12;
    put(at, uint64_t{kRootNode});
    put(at + 8, static_cast<uint16_t>(24 + entry));  // where its name starts
    put(at + 10, uint8_t{2});                        // a directory
  }
  for (size_t dot = 0; dot < 3; ++dot) put(kRoot + 32 + 24 + dot, '.');

  ErofsSource source;
  HYDRANT_TRY(source.primary, open_file(directory, O_TMPFILE | O_RDWR));
  HYDRANT_TRY_VOID(pwrite_all(source.primary.get(), image, 0));
  HYDRANT_TRY(Created made, create(source));
  return made.loop.empty() ? ErofsBacking::kFiles : ErofsBacking::kLoopDevices;
}

}  // namespace hydrant::daemon
