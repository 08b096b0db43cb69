#include "shim/object_handle.h"

#include <fcntl.h>
#include <sys/mman.h>

#include <algorithm>

#include "shim/call.h"
#include "shim/device.h"
#include "shim/sys.h"

namespace hydrant::shim {
namespace {

namespace ch = proto::channel;
namespace dev = proto::device;
constexpr int kMostParts = 64;

// Walks an iovec in pieces, without copying it.
class Parts {
 public:
  Parts(const iovec* parts, int count) : parts_(parts), count_(count) {}
  // Up to kMostParts parts of at most `most` bytes together, moving on behind them.
  size_t take(iovec* out, size_t most, int* used) {
    size_t taken = 0;
    for (*used = 0; at_ < count_ && taken < most && *used < kMostParts;) {
      const iovec& part = parts_[at_];
      size_t size = std::min(part.iov_len - inside_, most - taken);
      if (size) out[(*used)++] = {static_cast<char*>(part.iov_base) + inside_, size};
      taken += size;
      inside_ += size;
      if (inside_ == part.iov_len) ++at_, inside_ = 0;
    }
    return taken;
  }

 private:
  const iovec* const parts_;
  const int count_;
  int at_ = 0;
  size_t inside_ = 0;
};

long write_inline(int fd, const iovec* parts, int count, size_t size, std::optional<off_t> offset) {
  ch::Pwrite pwrite{.offset = static_cast<uint64_t>(offset.value_or(0)), .length = size};
  // encode_pwrite counts the bytes by `data`; they stay where they are.
  pwrite.data = Bytes(static_cast<const std::byte*>(count ? parts[0].iov_base : nullptr), size);
  auto head = offset ? ch::encode_pwrite(1, pwrite, 0) : ch::encode_bytes(ch::Op::kAppend, 1, size);
  return call({.socket = fd, .head = &head, .body = parts, .body_parts = static_cast<size_t>(count)}).result;
}

// A memfd that holds the next `size` bytes and cannot shrink; -errno.
long to_memory(Parts& from, size_t size) {
  long memory = sys(SYS_memfd_create, "hydrant-write", MFD_CLOEXEC | MFD_ALLOW_SEALING);
  if (memory < 0) return memory;
  for (size_t done = 0; done < size;) {
    iovec some[kMostParts];
    int used = 0;
    size_t wanted = from.take(some, size - done, &used);
    long written = sys(SYS_pwritev, memory, some, used, static_cast<long>(done), 0L);
    if (written != static_cast<long>(wanted)) {
      sys(SYS_close, memory);
      return written < 0 ? written : -EFAULT;  // a part that cannot be read ends the copy early
    }
    done += wanted;
  }
  sys(SYS_fcntl, memory, F_ADD_SEALS, F_SEAL_SHRINK);
  return memory;
}

long write_memory(int fd, Parts& from, size_t size, std::optional<off_t> offset) {
  long memory = to_memory(from, size);
  if (memory < 0) return memory == -EFAULT || memory == -EMFILE || memory == -ENFILE ? memory : -ENOMEM;
  auto head = dev::encode_write_memory(
      1, {.offset = static_cast<uint64_t>(offset.value_or(0)), .length = size, .positional = offset ? 1u : 0u});
  long result = call({.socket = fd, .head = &head, .passed = static_cast<int>(memory)}).result;
  sys(SYS_close, memory);
  return result;
}

}  // namespace

long handle_writev(int fd, const iovec* parts, int count, std::optional<off_t> offset) {
  if (offset && *offset < 0) return -EINVAL;
  long total = total_of(parts, count);
  if (total < 0) return total;
  Parts rest(parts, count);
  if (static_cast<size_t>(total) <= ch::kMaxInline && count <= kMostParts) {
    iovec some[kMostParts];
    int used = 0;
    rest.take(some, static_cast<size_t>(total), &used);
    return write_inline(fd, some, used, static_cast<size_t>(total), offset);
  }
  long done = 0;
  while (done < total) {
    size_t size = std::min<size_t>(static_cast<size_t>(total - done), dev::kMaxMemory);
    long result = write_memory(fd, rest, size, offset ? std::optional(*offset + done) : std::nullopt);
    if (result < 0) return done ? done : result;
    done += result;
    if (static_cast<size_t>(result) != size) break;
  }
  return done;
}

long handle_lseek(int fd, off_t offset, int whence) {
  if (whence < 0 || whence > SEEK_HOLE) return -EINVAL;
  auto head = ch::encode_lseek(1, {.offset = offset, .whence = whence});
  return call({.socket = fd, .head = &head}).result;
}

long handle_ioctl(int fd, unsigned long number, unsigned long argument) {
  auto head = ch::encode_ioctl(1, {.argument = argument, .number = static_cast<uint32_t>(number)});
  return call({.socket = fd, .head = &head}).result;
}

}  // namespace hydrant::shim
