#include "fetch/write_all.h"

#include <algorithm>
#include <cerrno>

#include "base/nap.h"

namespace hydrant::fetch {

constexpr uint64_t kBlock = 4096;

Result<> write_all(ObjectHandle& handle, Bytes bytes, uint64_t offset, std::stop_token stop, Duration patience) {
  Deadline deadline = Deadline::after(patience);
  Duration pause = std::chrono::milliseconds(1);
  while (!bytes.empty()) {
    int64_t count = handle.pwrite(bytes, offset);
    if (count > 0) {
      // The next write must begin at a block, so a part of one is written again.
      auto written = static_cast<uint64_t>(count);
      if (written < bytes.size()) written = round_down(written, kBlock);
      if (written == 0) return fail(Code::kIo, "the cache wrote less than a block");
      bytes = bytes.subspan(std::min<uint64_t>(written, bytes.size()));
      offset += written;
      continue;
    }
    int err = count == 0 ? EIO : static_cast<int>(-count);
    if (err == EPIPE || err == ECONNRESET || err == EBADF || err == ENOTCONN)
      return fail(Code::kGone, "the cache has left");
    if (err != ENOBUFS && err != EINTR && err != EAGAIN) return fail_sys(err, "write to the cache");
    if (stop.stop_requested()) return fail(Code::kCancelled, "stopped while writing to the cache");
    if (deadline.passed()) return fail(Code::kNoSpace, "the cache takes no more data: is its disk full?");
    nap(stop, pause);
    pause = std::min<Duration>(pause * 2, std::chrono::milliseconds(50));
  }
  return {};
}

}  // namespace hydrant::fetch
