#include "fetch/transport/kernel_control.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>

#include "base/file.h"
#include "base/unix_socket.h"
#include "fetch/transport/window_slots.h"
#include "proto/cachefiles_message.h"

namespace hydrant::fetch {

namespace {

// The kernel writes a backing file by direct I/O: memory, offset and length are whole blocks.
constexpr size_t kBlock = 4096;
constexpr size_t kBounce = 1 << 20;
constexpr size_t kLongestDirectory = 4000;  // of a command's 4095 bytes

struct Freed {
  void operator()(std::byte* memory) const { std::free(memory); }
};
using AlignedMemory = std::unique_ptr<std::byte[], Freed>;

bool is_aligned(const std::byte* memory) { return reinterpret_cast<uintptr_t>(memory) % kBlock == 0; }

int64_t command(int device, std::string_view text) {
  ssize_t written = ::write(device, text.data(), text.size());
  return written < 0 ? -errno : written;
}

class KernelHandle final : public ObjectHandle {
 public:
  KernelHandle(Fd fd, std::shared_ptr<WindowSlots> slots) : fd_(std::move(fd)), slots_(std::move(slots)) {}

  int64_t lseek(int64_t offset, int whence) override {
    const off_t at = ::lseek(fd_.get(), offset, whence);
    return at < 0 ? -errno : at;
  }

  int64_t pwrite(Bytes bytes, uint64_t offset) override {
    // Linux 6.1 rounds such an offset down, and so misplaces the bytes.
    if (offset % kBlock != 0) return -ENOBUFS;
    uint64_t done = 0;
    AlignedMemory bounce;
    while (done < bytes.size()) {
      Bytes piece = bytes.subspan(done);
      const std::byte* memory = piece.data();
      size_t length = round_down(piece.size(), kBlock);
      if (!is_aligned(memory) || length == 0) {
        piece = piece.first(std::min(piece.size(), kBounce));
        length = round_up(piece.size(), kBlock);
        if (!bounce) bounce.reset(static_cast<std::byte*>(std::aligned_alloc(kBlock, length)));
        if (!bounce) return done ? static_cast<int64_t>(done) : -ENOMEM;
        std::memcpy(bounce.get(), piece.data(), piece.size());
        std::memset(bounce.get() + piece.size(), 0, length - piece.size());
        memory = bounce.get();
      }
      piece = piece.first(std::min(piece.size(), length));
      ssize_t written = ::pwrite(fd_.get(), memory, length, static_cast<off_t>(offset + done));
      if (written < 0) return done ? static_cast<int64_t>(done) : -errno;
      auto count = std::min(static_cast<size_t>(written), piece.size());
      done += count;
      if (count < piece.size()) break;
    }
    return static_cast<int64_t>(done);
  }

  int64_t complete(uint32_t msg_id) override {
    return ::ioctl(fd_.get(), proto::kReadComplete, static_cast<unsigned long>(msg_id)) < 0 ? -errno : 0;
  }

  std::optional<Staging> stage(size_t size) override { return slots_->stage(size); }

 private:
  const Fd fd_;
  const std::shared_ptr<WindowSlots> slots_;  // shared with the control and its other handles
};

class Device final : public Control {
 public:
  Device(Fd device, Fd stop, std::shared_ptr<WindowSlots> slots)
      : device_(std::move(device)), stop_(std::move(stop)), slots_(std::move(slots)) {}

  Result<Request> next(Deadline deadline) override {
    for (;;) {
      if (empty_turns_ > 0) wait_fd(stop_.get(), POLLIN, deadline.sooner(Deadline::after(pause())));
      pollfd fds[2] = {{stop_.get(), POLLIN, 0}, {device_.get(), POLLIN, 0}};
      if (::poll(fds, 2, deadline.left_ms()) < 0 && errno != EINTR) return fail_sys(errno, "poll the device");
      if (fds[0].revents) return fail(Code::kCancelled, "stopped");
      if (fds[1].revents & (POLLERR | POLLHUP | POLLNVAL)) return fail(Code::kGone, "the device is gone");
      if (fds[1].revents == 0) {
        if (!deadline.passed()) continue;
        empty_turns_ = 0;
        // Nothing else tells of a cache that has been given up; an empty command does nothing in one that is alive.
        if (command(device_.get(), {}) == -EIO) return fail(Code::kGone, "the kernel has given up the cache");
        slots_->trim();
        return fail(Code::kTooSlow, "no request");
      }

      std::byte buffer[proto::kMessageBufferSize];
      ssize_t size = ::read(device_.get(), buffer, sizeof buffer);
      if (size > 0) {
        empty_turns_ = 0;
        return decode(Bytes(buffer, static_cast<size_t>(size)));
      }
      const int err = size < 0 ? errno : 0;
      if (err == EIO || err == EBADF || err == ENODEV) return fail(Code::kGone, "the device is gone");
      ++empty_turns_;
      // A request that could not be delivered, for want of a descriptor for instance: its reader has the error.
      if (err != 0 && err != EINTR && err != EAGAIN)
        return fail(Code::kCorrupt, sys_error(err, "read the device").what);
      if (deadline.passed()) return fail(Code::kTooSlow, "no request");
    }
  }

  int64_t write(std::string_view text) override { return command(device_.get(), text); }

  void stop() override { ::eventfd_write(stop_.get(), 1); }

 private:
  // The device can show IN and have nothing: once for the READ of an object that is then opened again, and before Linux
  // 6.1 for as long as any request is unanswered. 1 ms, doubled up to 16.
  Duration pause() const { return std::chrono::milliseconds(1 << std::min(empty_turns_ - 1, 4U)); }

  Result<Request> decode(Bytes bytes) {
    HYDRANT_TRY(proto::Message message, proto::decode_message(bytes));
    std::shared_ptr<ObjectHandle> handle;
    if (message.opcode == proto::Opcode::kOpen) {
      Fd fd(message.fd);
      ::fcntl(fd.get(), F_SETFD, FD_CLOEXEC);
      handle = std::make_shared<KernelHandle>(std::move(fd), slots_);
    }
    return request_of(std::move(message), std::move(handle));
  }

  const Fd device_;
  const Fd stop_;                             // eventfd; never read, so it stays
  const std::shared_ptr<WindowSlots> slots_;  // shared with handles, which may outlive us
  unsigned empty_turns_ = 0;                  // reads that brought nothing; of the one thread in next()
};

// The commands before the first request. An earlier process may have given some of them or all.
Result<> bind(int device, const KernelControlOptions& options) {
  bool adopted = false;
  for (const std::string& text : {"dir " + options.cache_dir, "tag " + options.tag}) {
    int64_t written = command(device, text);
    if (written == -EIO) return fail(Code::kGone, "the kernel has given up the cache");
    if (written == -EEXIST)
      adopted = true;
    else if (written < 0)
      return fail_sys(static_cast<int>(-written), text);
  }
  int64_t bound = command(device, "bind ondemand");
  if (bound >= 0) return {};
  const std::string doing = "bind a cache at " + options.cache_dir;
  switch (auto err = static_cast<int>(-bound)) {
    case EBUSY:
      if (adopted && command(device, "restore") >= 0) return {};
      return fail_sys(err, adopted ? doing + ": the device is bound, but not in on-demand mode" : doing);
    case EINVAL: return fail(Code::kUnsupported, doing + ": this kernel's cachefiles has no on-demand mode");
    case EOPNOTSUPP:
      return fail(Code::kUnsupported, doing + ": its file system lacks user attributes or unnamed files");
    case ENOBUFS: return fail(Code::kNoSpace, doing + ": its disk is too full");
    default: return fail_sys(err, doing);
  }
}

}  // namespace

Result<Fd> KernelControl::open_device(const std::string& path) {
  Fd device(::open(path.c_str(), O_RDWR | O_CLOEXEC));
  if (device) return device;
  if (errno == ENOENT || errno == ENODEV || errno == ENXIO)
    return fail(Code::kNotFound, path + ": no such device; does this kernel have cachefiles (modprobe cachefiles)?");
  if (errno == EBUSY) return fail(Code::kBusy, path + ": another daemon has it, or its objects are still open");
  return fail_sys(errno, path);
}

Result<std::unique_ptr<Control>> KernelControl::start(Fd device, const KernelControlOptions& options) {
  const std::string& directory = options.cache_dir;
  if (!directory.starts_with('/') || directory.size() > kLongestDirectory || directory.find('\n') != directory.npos)
    return fail(Code::kInvalid, "the cache's directory must be an absolute path of one line: " + directory);
  if (options.tag.empty() || options.tag.size() > 64 || options.tag.find_first_of("\n\t ") != options.tag.npos)
    return fail(Code::kInvalid, "the cache's tag must be one word of at most 64 bytes");
  HYDRANT_TRY_VOID(make_directories(directory));
  HYDRANT_TRY_VOID(bind(device.get(), options));
  Fd stop(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!stop) return fail_sys(errno, "eventfd");
  HYDRANT_TRY(auto slots, WindowSlots::create(options.slot_bytes, options.slots));
  return std::make_unique<Device>(std::move(device), std::move(stop), std::move(slots));
}

}  // namespace hydrant::fetch
