#include "shim/device.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <algorithm>
#include <climits>
#include <cstddef>
#include <cstring>
#include <utility>

#include "shim/call.h"
#include "shim/environment.h"
#include "shim/sys.h"

namespace hydrant::shim {
namespace {

namespace ch = proto::channel;
namespace dev = proto::device;

constexpr size_t kLongest = 4096;         // no message and no state text is longer (spec 2.5, 6.1)
constexpr size_t kLongestCommand = 4095;  // spec 2.3
constexpr size_t kPage = 4096;
constexpr size_t kOpenFdOffset = 24;
constexpr long kMostBytes = 0x7ffff000;  // of one read or write, in the kernel

// How much of the buffer's start can be written to. hydrantd must know before it hands a message out, for a message
// that cannot be stored is lost, and its request fails.
size_t writable_prefix(void* buffer, size_t size) {
  auto first = reinterpret_cast<uintptr_t>(buffer) & ~(kPage - 1);
  uintptr_t end = reinterpret_cast<uintptr_t>(buffer) + size;
  for (uintptr_t page = first; page < end; page += kPage) {
    long result = sys(SYS_madvise, page, kPage, MADV_POPULATE_WRITE);
    if (result == -EFAULT || result == -ENOMEM)
      return page <= reinterpret_cast<uintptr_t>(buffer) ? 0 : page - reinterpret_cast<uintptr_t>(buffer);
  }
  return size;
}

int connect_engine() {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  const char* path = engine_socket();
  size_t size = std::strlen(path);
  if (size >= sizeof address.sun_path) return -ENODEV;
  std::memcpy(address.sun_path, path, size);
  long fd = sys(SYS_socket, AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
  if (fd < 0) return static_cast<int>(fd);
  long result;
  do {
    result = sys(SYS_connect, fd, &address, sizeof address);
  } while (result == -EINTR);
  if (result == 0) return static_cast<int>(fd);
  sys(SYS_close, fd);
  return result == -EACCES ? -EACCES : -ENODEV;  // what a kernel without the module says
}

// The answer and its descriptor come on the connection itself.
long ask_for_device(int connection, uint32_t access, int* passed) {
  auto head = dev::encode_open(1, {.access = access});
  if (sys(SYS_sendto, connection, head.bytes().data(), head.bytes().size(), MSG_NOSIGNAL, nullptr, 0) < 0)
    return -ENODEV;
  std::byte bytes[ch::kHeaderSize];
  iovec part{bytes, sizeof bytes};
  alignas(cmsghdr) std::byte control[CMSG_SPACE(sizeof(int))];
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof control;
  long got;
  do {
    got = sys(SYS_recvmsg, connection, &message, MSG_CMSG_CLOEXEC);
  } while (got == -EINTR);
  if (got != sizeof bytes) return -ENODEV;
  auto result = load_le<int64_t>(bytes + 16);
  cmsghdr* rights = CMSG_FIRSTHDR(&message);
  if (rights && rights->cmsg_level == SOL_SOCKET && rights->cmsg_type == SCM_RIGHTS)
    std::memcpy(passed, CMSG_DATA(rights), sizeof *passed);
  if (result == 0 && *passed < 0) return -EMFILE;  // no number was free for it
  return result;
}

}  // namespace

bool is_device_path(const char* path) {
  static constexpr char kPath[] = "/dev/cachefiles";
  return path && path[0] == '/' && engine_socket()[0] && std::strcmp(path, kPath) == 0;
}

long device_open(int flags) {
  if ((flags & (O_CREAT | O_EXCL)) == (O_CREAT | O_EXCL)) return -EEXIST;
  if (flags & O_DIRECTORY) return -ENOTDIR;
  int access = flags & O_ACCMODE;
  if (access == O_ACCMODE) return -EINVAL;
  int connection = connect_engine();
  if (connection < 0) return connection;
  int passed = -1;
  long result = ask_for_device(connection, static_cast<uint32_t>(access), &passed);
  sys(SYS_close, connection);
  if (result < 0) return result;
  // The lowest free number, as for any open; and as close-on-exec as it was asked to be.
  long fd = sys(SYS_fcntl, passed, flags & O_CLOEXEC ? F_DUPFD_CLOEXEC : F_DUPFD, 0);
  if (fd < 0) return sys(SYS_close, passed), fd;
  sys(SYS_close, passed);
  if (flags & O_NONBLOCK) sys(SYS_fcntl, fd, F_SETFL, O_NONBLOCK);
  fresh(static_cast<int>(fd));
  make_spare();
  return fd;
}

long device_read(int fd, const Name& name, void* buffer, size_t size) {
  if (name.access == O_WRONLY) return -EBADF;
  size_t most = std::min(size, kLongest);
  dev::Read read{.buffer_size = static_cast<uint32_t>(most),
                 .usable = static_cast<uint32_t>(writable_prefix(buffer, most))};
  std::byte message[kLongest];
  auto head = dev::encode_read(1, read);
  Answer answer = call({.socket = fd, .head = &head, .out = message, .out_size = sizeof message, .keep_reply = true});
  if (!answer.sent && (answer.result == -EMFILE || answer.result == -ENFILE)) {
    // An OPEN cannot be taken now, and fails for this very reason; everything else can.
    read.descriptor = static_cast<int32_t>(answer.result);
    head = dev::encode_read(1, read);
    answer = call({.socket = fd, .head = &head, .out = message, .out_size = sizeof message});
  }
  if (answer.passed >= 0) sys(SYS_close, answer.passed);
  bool is_handle = answer.result > 0 && (answer.flags & dev::kIsHandle) && answer.reply >= 0 &&
                   answer.size >= kOpenFdOffset + sizeof(uint32_t);
  if (is_handle) {
    store_le(message + kOpenFdOffset, static_cast<uint32_t>(answer.reply));
    sys(SYS_fcntl, answer.reply, F_SETFD, 0);  // the kernel's are not close-on-exec (spec 6.5)
    fresh(answer.reply);
  } else if (answer.reply >= 0) {
    sys(SYS_close, answer.reply);
  }
  if (answer.result > 0) {
    if (answer.size > read.usable) return -EIO;  // hydrantd never does
    std::memcpy(buffer, message, answer.size);
  }
  return answer.result;
}

long device_write(int fd, const Name& name, const void* buffer, size_t size) {
  if (name.access == O_RDONLY) return -EBADF;
  // `cull`, `inuse` and a relative `dir` are about the caller's directory.
  long cwd = sys(SYS_openat, AT_FDCWD, ".", O_PATH | O_DIRECTORY | O_CLOEXEC);
  auto send = [&](const void* bytes, size_t length) {
    auto head = ch::encode_bytes(ch::Op::kWrite, 1, length);
    iovec body{const_cast<void*>(bytes), length};
    return call({.socket = fd,
                 .head = &head,
                 .body = &body,
                 .body_parts = length ? 1u : 0u,
                 .passed = cwd < 0 ? -1 : static_cast<int>(cwd)})
        .result;
  };
  long result;
  if (size > kLongestCommand) {
    // Refused for its length before it is looked at; but a dead cache says so first.
    static const char kTooLong[kLongestCommand + 1] = {};
    result = send(kTooLong, sizeof kTooLong);
  } else {
    result = send(buffer, size);
    // The same for bytes that cannot be read: ask with a command that nothing but death lets pass for another reason.
    if (result == -EFAULT && send("", 1) == -EIO) result = -EIO;
  }
  if (cwd >= 0) sys(SYS_close, cwd);
  return result;
}

long total_of(const iovec* parts, int count) {
  if (count < 0 || count > IOV_MAX) return -EINVAL;
  unsigned long total = 0;
  for (int i = 0; i < count; ++i) {
    if (parts[i].iov_len > SSIZE_MAX) return -EINVAL;
    total = std::min<unsigned long>(total + parts[i].iov_len, kMostBytes);
  }
  return static_cast<long>(total);
}

namespace {

template <class Each>
long each_part(const iovec* parts, int count, Each each) {
  long total = total_of(parts, count);
  if (total <= 0) return total;
  long done = 0;
  for (int i = 0; i < count && done < total; ++i) {
    if (parts[i].iov_len == 0 && i > 0) continue;
    long result = each(parts[i]);
    if (result < 0) return done ? done : result;
    done += result;
    if (static_cast<size_t>(result) != parts[i].iov_len) break;
  }
  return done;
}

}  // namespace

long device_readv(int fd, const Name& name, const iovec* parts, int count) {
  if (name.access == O_WRONLY) return -EBADF;
  return each_part(parts, count, [&](const iovec& part) { return device_read(fd, name, part.iov_base, part.iov_len); });
}

long device_writev(int fd, const Name& name, const iovec* parts, int count) {
  if (name.access == O_RDONLY) return -EBADF;
  return each_part(parts, count,
                   [&](const iovec& part) { return device_write(fd, name, part.iov_base, part.iov_len); });
}

long device_lseek(int whence) { return whence < 0 || whence > SEEK_HOLE ? -EINVAL : 0; }

}  // namespace hydrant::shim
