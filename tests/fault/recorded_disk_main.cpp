// recorded_disk IMAGE LOG FILE: mounts IMAGE over FILE, as a file that a loop device can be made of, and writes down in
// LOG what reaches it: each write with its bytes, each flush. Ends when it is unmounted. power.py replays the log.
//
// A record is an offset (8 bytes), a length (4) and a kind (4): 0 a write, whose bytes follow; 1 a flush. Little
// endian. One thread answers one request after the other, so what stands before a flush was answered before the flush
// was asked for.
#include <fcntl.h>
#include <linux/fuse.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <string>
#include <vector>

#include "base/fd.h"
#include "base/file.h"

namespace {

using namespace hydrant;

constexpr uint32_t kMaxIo = 1 << 20;
constexpr uint64_t kForever = 3600;

struct Record {
  uint64_t offset;
  uint32_t size;
  uint32_t is_flush;
};

class RecordedDisk {
 public:
  RecordedDisk(Fd device, Fd image, Fd log, uint64_t size)
      : device_(std::move(device)), image_(std::move(image)), log_(std::move(log)), size_(size) {}

  void serve() {
    std::vector<std::byte> request(kMaxIo + 4096);
    for (;;) {
      ssize_t n = ::read(device_.get(), request.data(), request.size());
      if (n < 0 && errno == ENODEV) return;
      if (n < ssize_t(sizeof(fuse_in_header))) continue;
      dispatch(load_le<fuse_in_header>(request.data()), request.data() + sizeof(fuse_in_header));
    }
  }

 private:
  void dispatch(const fuse_in_header& header, const std::byte* body) {
    switch (header.opcode) {
      case FUSE_INIT: return init(header, body);
      case FUSE_GETATTR: return getattr(header);
      case FUSE_OPEN: return answer(header, fuse_open_out{.fh = 0, .open_flags = FOPEN_DIRECT_IO, .padding = 0});
      case FUSE_READ: return read(header, load_le<fuse_read_in>(body));
      case FUSE_WRITE: return write(header, load_le<fuse_write_in>(body), body + sizeof(fuse_write_in));
      case FUSE_FSYNC: return flush(header);
      case FUSE_RELEASE:
      case FUSE_FLUSH: return reply(header, 0);
      case FUSE_FORGET:
      case FUSE_BATCH_FORGET: return;
      default: return reply(header, -ENOSYS);
    }
  }

  void init(const fuse_in_header& header, const std::byte* body) {
    fuse_init_out out{};
    out.major = FUSE_KERNEL_VERSION;
    out.minor = FUSE_KERNEL_MINOR_VERSION;
    out.flags = load_le<fuse_init_in>(body).flags & (FUSE_BIG_WRITES | FUSE_MAX_PAGES | FUSE_ASYNC_DIO);
    out.max_background = 64;
    out.congestion_threshold = 48;
    out.max_write = kMaxIo;
    out.max_pages = kMaxIo / 4096;
    out.time_gran = 1;
    answer(header, out);
  }

  void getattr(const fuse_in_header& header) {
    fuse_attr_out out{};
    out.attr_valid = kForever;
    out.attr.ino = FUSE_ROOT_ID;
    out.attr.mode = S_IFREG | 0600;
    out.attr.nlink = 1;
    out.attr.size = size_;
    out.attr.blksize = 4096;
    answer(header, out);
  }

  void read(const fuse_in_header& header, const fuse_read_in& in) {
    buffer_.resize(in.size);
    auto got = pread_some(image_.get(), buffer_, in.offset);
    reply(header, got ? 0 : -EIO, got ? Bytes(buffer_).first(*got) : Bytes{});
  }

  void write(const fuse_in_header& header, const fuse_write_in& in, const std::byte* data) {
    if (!pwrite_all(image_.get(), {data, in.size}, in.offset) || !record({in.offset, in.size, 0}, {data, in.size}))
      return reply(header, -EIO);
    answer(header, fuse_write_out{.size = in.size, .padding = 0});
  }

  void flush(const fuse_in_header& header) { reply(header, record({0, 0, 1}, {}) ? 0 : -EIO); }

  bool record(const Record& record, Bytes bytes) {
    iovec parts[2] = {{const_cast<Record*>(&record), sizeof record},
                      {const_cast<std::byte*>(bytes.data()), bytes.size()}};
    return ::writev(log_.get(), parts, 2) == ssize_t(sizeof record + bytes.size());
  }

  void reply(const fuse_in_header& to, int error, Bytes payload = {}) {
    fuse_out_header header{.len = uint32_t(sizeof header + payload.size()), .error = error, .unique = to.unique};
    iovec parts[2] = {{&header, sizeof header}, {const_cast<std::byte*>(payload.data()), payload.size()}};
    (void)!::writev(device_.get(), parts, 2);
  }
  template <class T>
  void answer(const fuse_in_header& to, const T& value) {
    reply(to, 0, Bytes(reinterpret_cast<const std::byte*>(&value), sizeof value));
  }

  const Fd device_, image_, log_;
  const uint64_t size_;
  std::vector<std::byte> buffer_;
};

int give_up(const char* what) {
  std::perror(what);
  return 1;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 4) return std::fprintf(stderr, "usage: recorded_disk IMAGE LOG FILE\n"), 2;
  Fd image(::open(argv[1], O_RDWR | O_CLOEXEC));
  struct stat status {};
  if (!image || ::fstat(image.get(), &status)) return give_up(argv[1]);
  Fd log(::open(argv[2], O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0600));
  if (!log) return give_up(argv[2]);
  Fd device(::open("/dev/fuse", O_RDWR | O_CLOEXEC));
  if (!device) return give_up("/dev/fuse");
  const std::string options = "rootmode=100600,user_id=0,group_id=0,fd=" + std::to_string(device.get());
  if (::mount("recorded_disk", argv[3], "fuse", MS_NOSUID | MS_NODEV, options.c_str())) return give_up(argv[3]);
  RecordedDisk(std::move(device), std::move(image), std::move(log), static_cast<uint64_t>(status.st_size)).serve();
  return 0;
}
