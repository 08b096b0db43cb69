// Free space: thresholds, the space check that starts and stops culling, and the state text (spec 2.5, 8.1, 8.2).
#include <algorithm>
#include <cstdio>

#include "base/log.h"
#include "cachefiles/cache.h"
#include "cachefiles/engine_impl.h"

namespace hydrant::cachefiles {
namespace {

uint64_t less_or_zero(uint64_t a, uint64_t b) { return a > b ? a - b : 0; }

}  // namespace

void Cache::compute_thresholds(const struct statfs& stats) {
  auto of = [](uint64_t total, const Percent& percent) {
    uint64_t hundredth = total / 100;
    return Percent{hundredth * percent.run, hundredth * percent.cull, hundredth * percent.stop};
  };
  file_threshold_ = of(stats.f_files, file_percent_);
  block_threshold_ = of(stats.f_blocks, block_percent_);
}

int Cache::check_space(uint64_t files, uint64_t bytes, Reason reason) {
  struct statfs stats;
  if (int err = disk().statfs(cache_directory_ ? cache_directory_.get() : root_.get(), &stats)) {
    if (err == -EIO) io_error("statfs", err);
    return trace::vfs_error("statfs", err);
  }
  uint64_t blocks = (bytes + block_size_ - 1) / block_size_;
  auto writing = static_cast<uint64_t>(std::max<int64_t>(0, blocks_writing_.load()));
  uint64_t free_blocks = less_or_zero(less_or_zero(stats.f_bavail, writing), blocks);
  uint64_t free_files = less_or_zero(stats.f_ffree, files);
  if (free_files < file_threshold_.stop || free_blocks < block_threshold_.stop) {
    auto& counters = engine_.counters();
    ++(reason == Reason::kWrite    ? counters.no_space_write
       : reason == Reason::kCreate ? counters.no_space_create
                                   : counters.no_space_other);
    set_culling(true);
    return -ENOBUFS;
  }
  if (free_files < file_threshold_.cull || free_blocks < block_threshold_.cull)
    set_culling(true);
  else if (has(kCulling) && free_files >= file_threshold_.run && free_blocks >= block_threshold_.run)
    set_culling(false);
  return 0;
}

void Cache::set_culling(bool on) {
  unsigned before = on ? flags_.fetch_or(kCulling) : flags_.fetch_and(~unsigned{kCulling});
  if (bool(before & kCulling) == on) return;
  log::info(on ? "cachefiles.culling_starts" : "cachefiles.culling_stops");
  flags_.fetch_or(kStateChanged);
  submit([self = shared_from_this()] { self->wake(); });  // the caller may hold a lock
}

void Cache::count_released(uint64_t sectors) {
  files_released_.fetch_add(1);
  sectors_released_.fetch_add(sectors);
  flags_.fetch_or(kStateChanged);
  wake();
}

int64_t Cache::read_state(size_t buffer_size, Receiver& receiver) {
  check_space(0, 0, Reason::kNone);
  // The counters and the flag are consumed even when the text then does not fit, as the kernel's are.
  uint32_t files = files_released_.exchange(0);
  uint64_t sectors = sectors_released_.exchange(0);
  unsigned flags = flags_.fetch_and(~unsigned{kStateChanged});
  char text[256];
  auto hex = [](uint64_t value) { return static_cast<unsigned long long>(value); };
  int size = std::snprintf(
      text, sizeof text,
      "cull=%c frun=%llx fcull=%llx fstop=%llx brun=%llx bcull=%llx bstop=%llx freleased=%x breleased=%llx",
      flags & kCulling ? '1' : '0', hex(file_threshold_.run), hex(file_threshold_.cull), hex(file_threshold_.stop),
      hex(block_threshold_.run), hex(block_threshold_.cull), hex(block_threshold_.stop), files, hex(sectors));
  if (static_cast<size_t>(size) > buffer_size) return -EMSGSIZE;
  if (!receiver.deliver(as_bytes(std::string_view(text, static_cast<size_t>(size))), nullptr, -1)) return -EFAULT;
  return size;
}

}  // namespace hydrant::cachefiles
