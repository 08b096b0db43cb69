#include "front/inproc/direct_reader.h"

#include <algorithm>
#include <cerrno>
#include <condition_variable>
#include <optional>

namespace hydrant::front {

namespace {

// Shared with the callback, which may come after the reader gave up.
struct Outcome {
  std::mutex mutex;
  std::condition_variable known;
  std::optional<int> status;
};

Result<> make_present(const std::shared_ptr<cachefiles::Cookie>& cookie, ByteRange range, Deadline deadline) {
  if (cookie->present(range)) return {};
  auto outcome = std::make_shared<Outcome>();
  auto wait = cookie->ensure(range, [outcome](int status) {
    std::lock_guard lock(outcome->mutex);
    outcome->status = status;
    outcome->known.notify_all();
  });
  std::unique_lock lock(outcome->mutex);
  if (!outcome->known.wait_until(lock, deadline.at(), [&] { return outcome->status.has_value(); })) {
    lock.unlock();
    if (wait) wait->cancel();
    return fail(Code::kTooSlow, "no answer from the user daemon in time");
  }
  if (*outcome->status != 0) return fail_sys(-*outcome->status, "fill");
  return {};
}

}  // namespace

Result<size_t> read(const std::shared_ptr<cachefiles::Cookie>& cookie, MutableBytes out, uint64_t offset,
                    Deadline deadline) {
  uint64_t size = cookie->size();
  if (offset >= size) return size_t{0};
  out = out.first(std::min<uint64_t>(out.size(), size - offset));
  ByteRange range{offset, offset + out.size()};
  if (range.empty()) return size_t{0};

  for (int64_t n = -ESTALE; n == -ESTALE;) {
    HYDRANT_TRY_VOID(make_present(cookie, range, deadline));
    n = cookie->read(out, offset);  // stale: discarded just now
    if (n < 0 && n != -ESTALE) return fail_sys(static_cast<int>(-n), "read of the backing file");
    if (n >= 0 && static_cast<size_t>(n) != out.size())
      return fail(Code::kCorrupt, "the backing file ends inside the object");
  }
  return out.size();
}

}  // namespace hydrant::front
