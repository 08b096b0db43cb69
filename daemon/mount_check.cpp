#include "daemon/mount_check.h"

#include <dirent.h>
#include <linux/fiemap.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/stat.h>

#include <array>
#include <cerrno>
#include <deque>
#include <memory>

#include "base/bytes.h"
#include "base/file.h"
#include "base/log.h"

namespace hydrant::daemon {

namespace {

constexpr int kMostFiles = 256;
constexpr int kMostDirectories = 256;

// Where the file's first data begin that are not beside its inode; nothing when there are none.
std::optional<uint64_t> first_data(const Fd& file) {
  alignas(fiemap) std::array<std::byte, sizeof(fiemap) + sizeof(fiemap_extent)> memory{};  // one extent follows it
  auto* map = reinterpret_cast<fiemap*>(memory.data());
  map->fm_length = FIEMAP_MAX_OFFSET;
  map->fm_extent_count = 1;
  constexpr uint32_t kElsewhere = FIEMAP_EXTENT_DATA_INLINE | FIEMAP_EXTENT_UNKNOWN;
  if (::ioctl(file.get(), FS_IOC_FIEMAP, map) != 0 || map->fm_mapped_extents == 0) return std::nullopt;
  const auto extent = load_le<fiemap_extent>(memory.data() + sizeof(fiemap));
  if (extent.fe_flags & kElsewhere) return std::nullopt;
  return extent.fe_logical;
}

}  // namespace

Result<> self_test(const Fd& mount, front::MarkedFiles& marks, bool all_marked) {
  std::deque<std::string> directories{"."};
  int files = 0;
  for (int seen = 0; !directories.empty() && seen < kMostDirectories && files < kMostFiles; ++seen) {
    const std::string directory = std::move(directories.front());
    directories.pop_front();
    const int fd = ::openat(mount.get(), directory.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    std::unique_ptr<DIR, int (*)(DIR*)> entries(fd < 0 ? nullptr : ::fdopendir(fd), ::closedir);
    if (!entries) return fail_sys(errno, "self-test of the mount: " + directory);
    while (const dirent* entry = ::readdir(entries.get())) {
      const std::string name = entry->d_name;
      if (name == "." || name == "..") continue;
      if (entry->d_type == DT_DIR && directories.size() < kMostDirectories)
        directories.push_back(directory + "/" + name);
      if (entry->d_type != DT_REG || files == kMostFiles) continue;
      Fd file(::openat(fd, name.c_str(), O_RDONLY | O_NOFOLLOW | O_CLOEXEC));
      auto at = file ? first_data(file) : std::nullopt;
      if (!at) continue;
      ++files;
      if (marks.asks(file, *at)) return {};
      if (all_marked)
        return fail(Code::kUnsupported,
                    "self-test: fanotify tells nothing of what is read through EROFS; use --front fuse");
    }
  }
  return {};
}

}  // namespace hydrant::daemon
