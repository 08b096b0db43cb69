#include "front/fanotify/fan_group.h"

#include <sys/fanotify.h>
#include <sys/resource.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>

#include "base/bytes.h"
#include "base/check.h"

namespace hydrant::front {

namespace {

// Headers of before Linux 6.14 do not have these.
constexpr uint64_t kPreAccess = 0x00100000;
constexpr uint8_t kRangeInfo = 6;
struct RangeInfo {
  fanotify_event_info_header header;
  uint32_t pad;
  uint64_t offset;
  uint64_t count;
};
constexpr uint32_t kDenyWithEio = FAN_DENY | (uint32_t{EIO} << 24);

constexpr unsigned kInit =
    FAN_CLASS_PRE_CONTENT | FAN_CLOEXEC | FAN_NONBLOCK | FAN_UNLIMITED_QUEUE | FAN_UNLIMITED_MARKS | FAN_REPORT_TID;

ByteRange range_of(const fanotify_event_metadata& event) {
  const auto* base = reinterpret_cast<const std::byte*>(&event);
  for (size_t at = event.metadata_len; at + sizeof(fanotify_event_info_header) <= event.event_len;) {
    const auto header = load_le<fanotify_event_info_header>(base + at);
    if (header.len < sizeof header || header.len > event.event_len - at) break;
    if (header.info_type == kRangeInfo && header.len >= sizeof(RangeInfo)) {
      const auto info = load_le<RangeInfo>(base + at);
      // Saturated: the caller cuts it to the file.
      return {info.offset, info.count > UINT64_MAX - info.offset ? UINT64_MAX : info.offset + info.count};
    }
    at += header.len;
  }
  return {0, UINT64_MAX};
}

}  // namespace

Result<FanGroup> FanGroup::create() {
  Fd group(::fanotify_init(kInit, O_RDWR | O_LARGEFILE | O_CLOEXEC));
  if (!group && (errno == EINVAL || errno == ENOSYS))
    return fail(Code::kUnsupported,
                "this kernel has no fanotify permission events (CONFIG_FANOTIFY_ACCESS_PERMISSIONS)");
  if (!group) return fail_sys(errno, "fanotify_init");
  return FanGroup(std::move(group));
}

Result<> FanGroup::mark(const Fd& file) {
  if (::fanotify_mark(group_.get(), FAN_MARK_ADD, kPreAccess, file.get(), nullptr) == 0) return {};
  if (errno == EINVAL)
    return fail(Code::kUnsupported, "this kernel has no events before reads (FAN_PRE_ACCESS, Linux 6.14 or later)");
  if (errno == EOPNOTSUPP || errno == ENODEV)
    return fail(Code::kUnsupported,
                "the file system of the cache has no events before reads (tmpfs, overlay and FUSE have none; ext4, xfs "
                "and btrfs do)");
  return fail_sys(errno, "fanotify_mark");
}

Result<> FanGroup::unmark(const Fd& file) {
  if (::fanotify_mark(group_.get(), FAN_MARK_REMOVE, kPreAccess, file.get(), nullptr) == 0 || errno == ENOENT)
    return {};
  return fail_sys(errno, "remove a fanotify mark");
}

std::vector<FanEvent> FanGroup::read() {
  // Room for one with its range, not for two. A later kernel may tell more of each.
  constexpr size_t kOne = sizeof(fanotify_event_metadata) + sizeof(RangeInfo);
  alignas(fanotify_event_metadata) std::array<std::byte, 4096> buffer;
  ssize_t size = ::read(group_.get(), buffer.data(), kOne);
  if (size < 0 && errno == EINVAL) size = ::read(group_.get(), buffer.data(), buffer.size());
  std::vector<FanEvent> out;
  for (size_t at = 0; size > 0 && at + sizeof(fanotify_event_metadata) <= size_t(size);) {
    const auto* event = reinterpret_cast<const fanotify_event_metadata*>(buffer.data() + at);
    HYDRANT_CHECK(event->vers == FANOTIFY_METADATA_VERSION && event->event_len >= sizeof *event, "fanotify's format");
    // The kernel lets pass what does not fit into its queue.
    HYDRANT_CHECK(!(event->mask & FAN_Q_OVERFLOW), "an unlimited queue of fanotify overflowed: readers may see zeros");
    if (event->fd >= 0) out.push_back({.fd = event->fd, .thread = event->pid, .range = range_of(*event)});
    at += event->event_len;
  }
  return out;
}

void FanGroup::answer(int fd, bool allow) {
  fanotify_response response{.fd = fd, .response = allow ? uint32_t{FAN_ALLOW} : kDenyWithEio};
  if (::write(group_.get(), &response, sizeof response) >= 0 || errno != EINVAL || allow) return;
  response.response = FAN_DENY;  // an unanswered reader would wait for ever
  (void)!::write(group_.get(), &response, sizeof response);
}

size_t FanGroup::deny_read_ones(const std::set<int>& spared) {
  // What ran before us under the same limit had no higher number.
  rlimit limit{};
  ::getrlimit(RLIMIT_NOFILE, &limit);
  const auto end = static_cast<int>(std::min<rlim_t>(limit.rlim_cur, 1 << 24));
  size_t denied = 0;
  for (int fd = 0; fd < end; ++fd) {
    if (spared.contains(fd)) continue;
    const fanotify_response response{.fd = fd, .response = kDenyWithEio};
    denied += ::write(group_.get(), &response, sizeof response) >= 0;
  }
  return denied;
}

}  // namespace hydrant::front
