#include "front/fuse/server.h"

#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>

#include <cerrno>

#include "base/check.h"
#include "base/log.h"

namespace hydrant::front {

namespace {

constexpr size_t kRequestSize = 16384;  // more than FUSE_MIN_READ_BUFFER and any request we let the kernel send
constexpr size_t kMaxWrite = 4096;      // nobody writes; the least the kernel accepts, it sizes the request buffer
constexpr unsigned kPages = kMaxRead / 4096;
constexpr uint64_t kTimeoutSeconds = 3600;
// FUSE_NOTIFY_RESEND of Linux 6.9; headers of before then do not have it. What comes again carries bit 63 in its
// `unique`, in an INTERRUPT that means it too, and the kernel wants it back as it was.
constexpr int32_t kNotifyResend = 7;
// Gets a thread out of read(2). Installed without SA_RESTART, does nothing.
constexpr int kWakeSignal = SIGUSR2;

void install_wake_signal() {
  struct sigaction action {};
  action.sa_handler = [](int) {};
  ::sigaction(kWakeSignal, &action, nullptr);
}

template <class T>
bool decode(Bytes body, T& value) {
  if (body.size() < sizeof value) return false;
  value = load_le<T>(body.data());
  return true;
}

fuse_attr attributes_of(uint64_t node, const Blob* blob) {
  fuse_attr attr{};
  attr.ino = node;
  attr.mode = blob ? S_IFREG | 0400 : S_IFDIR | 0500;
  attr.nlink = blob ? 1 : 2;
  attr.size = blob ? blob->file_size : 0;
  attr.blocks = attr.size / 512;
  attr.blksize = 4096;
  return attr;
}

}  // namespace

// Pages of the reply buffer cost memory only once a read was that large.
struct BlobFs::Server::Worker {
  alignas(8) std::byte request[kRequestSize];
  MutableBytes scratch;
  std::atomic<bool> ended{false};
  std::jthread thread;

  Worker() {
    void* at = ::mmap(nullptr, kMaxRead, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    HYDRANT_CHECK(at != MAP_FAILED, "out of address space at start");
    scratch = MutableBytes(static_cast<std::byte*>(at), kMaxRead);
  }
  ~Worker() {
    if (thread.joinable()) thread.join();
    ::munmap(scratch.data(), scratch.size());
  }
};

BlobFs::Server::Server(Fd device, Duration read_limit) : device_(std::move(device)), pending_(read_limit) {}

BlobFs::Server::~Server() = default;

void BlobFs::Server::start(unsigned threads) {
  install_wake_signal();
  for (unsigned i = 0; i < threads; ++i) {
    auto& worker = *workers_.emplace_back(std::make_unique<Worker>());
    worker.thread = std::jthread([this, &worker] { run(worker); });
    ::pthread_setname_np(worker.thread.native_handle(), "fuse");
  }
  limits_ = std::jthread([this] { watch_limits(); });
  ::pthread_setname_np(limits_.native_handle(), "fuse-limits");
}

void BlobFs::Server::stop() {
  stopping_.store(true);
  for (PendingRead& read : pending_.close()) {
    counters_.errors.fetch_add(1, std::memory_order_relaxed);
    reply(read.unique, -EIO);
    if (read.wait) read.wait->cancel();
  }
  // A signal that comes just before the thread enters read(2) is lost, so it is repeated until the thread is out.
  for (auto& worker : workers_) {
    while (!worker->ended.load()) {
      ::pthread_kill(worker->thread.native_handle(), kWakeSignal);
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
  }
  workers_.clear();
  if (limits_.joinable()) limits_.join();
  table_.clear();  // a callback that the engine holds may hold us, and we the cookies: that circle ends here
  // What a callback does inside is one pread and one write. On a hung disk the end of the process closes the device.
  if (answers_.close(Deadline::after(std::chrono::seconds(30))))
    device_.reset();
  else
    log::error("fuse-answer-hangs", {{"path", mount_point}});
}

BlobFsStat BlobFs::Server::stat() const {
  auto get = [](const std::atomic<uint64_t>& counter) { return counter.load(std::memory_order_relaxed); };
  return {.hits = get(counters_.hits),
          .misses = get(counters_.misses),
          .errors = get(counters_.errors),
          .too_slow = get(counters_.too_slow),
          .interrupted = get(counters_.interrupted),
          .waiting = pending_.count(),
          .bytes = get(counters_.bytes)};
}

void BlobFs::Server::run(Worker& worker) {
  while (!stopping_.load()) {
    ssize_t n = ::read(device_.get(), worker.request, sizeof worker.request);
    if (n < 0) {
      // ENOENT: the request was withdrawn before we had it. ENODEV: unmounted, or the connection was aborted.
      if (errno == EINTR || errno == ENOENT || errno == EAGAIN) continue;
      if (errno != ENODEV) log::error("fuse-read-failed", {{"errno", errno}});
      break;
    }
    Bytes request(worker.request, static_cast<size_t>(n));
    fuse_in_header header;
    if (!decode(request, header) || header.len != request.size()) {
      log::error("fuse-request-torn", {{"bytes", n}});
      break;
    }
    dispatch(header, request.subspan(sizeof header), worker.scratch);
  }
  worker.ended.store(true);
}

void BlobFs::Server::watch_limits() {
  for (;;) {
    auto expired = pending_.wait_expired();
    if (expired.empty()) return;
    for (PendingRead& read : expired) {
      counters_.too_slow.fetch_add(1, std::memory_order_relaxed);
      fail(read);
      log::warn("read-too-slow", {{"offset", read.range.begin}, {"bytes", read.range.size()}});
      if (read.wait) read.wait->cancel();
    }
  }
}

void BlobFs::Server::dispatch(const fuse_in_header& header, Bytes body, MutableBytes scratch) {
  switch (header.opcode) {
    case FUSE_READ: return read(header, body, scratch);
    case FUSE_INIT: return init(header, body);
    case FUSE_LOOKUP: return lookup(header, body);
    case FUSE_GETATTR: return getattr(header);
    case FUSE_OPEN: return open(header, body);
    case FUSE_RELEASE: table_.release(header.nodeid); return reply(header.unique, 0);
    case FUSE_OPENDIR: return reply_with(header.unique, fuse_open_out{});
    case FUSE_READDIR: return read_dir(header, body);
    case FUSE_RELEASEDIR: return reply(header.unique, 0);
    case FUSE_STATFS: return statfs(header);
    case FUSE_FORGET: return forget(body, false, header.nodeid);  // these two are not answered
    case FUSE_BATCH_FORGET: return forget(body, true, 0);
    case FUSE_INTERRUPT: return interrupt(body);
    case FUSE_DESTROY: return reply(header.unique, 0);
    default: return reply(header.unique, -ENOSYS);
  }
}

void BlobFs::Server::reply(uint64_t unique, int error, Bytes payload) {
  fuse_out_header header{
      .len = static_cast<uint32_t>(sizeof header + payload.size()), .error = error, .unique = unique};
  iovec parts[2] = {{&header, sizeof header}, {const_cast<std::byte*>(payload.data()), payload.size()}};
  // ENOENT: the request is gone (interrupted, or the connection ended). Anything else is a mistake of ours.
  if (::writev(device_.get(), parts, payload.empty() ? 1 : 2) < 0 && errno != ENOENT && errno != ENODEV)
    log::error("fuse-reply-refused", {{"errno", errno}, {"error", error}, {"bytes", payload.size()}});
}

void BlobFs::Server::init(const fuse_in_header& header, Bytes body) {
  // Kernels of before 2017 send the first 16 bytes only; what matters stands there.
  if (body.size() < 16) return reply(header.unique, -EPROTO);
  uint32_t major = load_le<uint32_t>(body.data()), minor = load_le<uint32_t>(body.data() + 4);
  uint32_t offered = load_le<uint32_t>(body.data() + 12);
  if (major != FUSE_KERNEL_VERSION || minor < 23) return reply(header.unique, -EPROTO);

  fuse_init_out out{};
  out.major = FUSE_KERNEL_VERSION;
  out.minor = std::min<uint32_t>(minor, FUSE_KERNEL_MINOR_VERSION);
  // Asynchronous direct I/O: EROFS sends the parts of a read-ahead window all at once and waits in a killable way.
  out.flags = offered & (FUSE_ASYNC_READ | FUSE_ASYNC_DIO | FUSE_PARALLEL_DIROPS | FUSE_MAX_PAGES);
  out.max_background = 4096;
  out.congestion_threshold = 3072;
  out.max_write = kMaxWrite;
  out.max_pages = kPages;
  out.time_gran = 1;
  reply_with(header.unique, out);
}

void BlobFs::Server::lookup(const fuse_in_header& header, Bytes body) {
  std::string_view name = as_text(body);
  if (header.nodeid != BlobTable::kRootNode || name.empty() || name.back() != '\0')
    return reply(header.unique, -ENOENT);
  name.remove_suffix(1);
  BlobTable::Entry entry = table_.lookup(std::string(name));
  if (!entry.node) return reply(header.unique, -ENOENT);
  fuse_entry_out out{};
  out.nodeid = entry.node;
  out.generation = entry.blob->generation;
  out.entry_valid = out.attr_valid = kTimeoutSeconds;
  out.attr = attributes_of(entry.node, entry.blob);
  reply_with(header.unique, out);
}

void BlobFs::Server::getattr(const fuse_in_header& header) {
  const Blob* blob = table_.find(header.nodeid);
  if (!blob && header.nodeid != BlobTable::kRootNode) return reply(header.unique, -ESTALE);
  fuse_attr_out out{};
  out.attr_valid = kTimeoutSeconds;
  out.attr = attributes_of(header.nodeid, blob);
  reply_with(header.unique, out);
}

void BlobFs::Server::open(const fuse_in_header& header, Bytes body) {
  fuse_open_in in;
  if (!decode(body, in)) return reply(header.unique, -EINVAL);
  if ((in.flags & O_ACCMODE) != O_RDONLY) return reply(header.unique, -EROFS);
  if (!table_.open(header.nodeid)) return reply(header.unique, -ESTALE);
  fuse_open_out out{};
  out.open_flags = FOPEN_DIRECT_IO | FOPEN_NOFLUSH;
  reply_with(header.unique, out);
}

void BlobFs::Server::read_dir(const fuse_in_header& header, Bytes body) {
  fuse_read_in in;
  if (!decode(body, in)) return reply(header.unique, -EINVAL);
  Buffer out;
  BlobTable::Entry entry;
  std::string name;
  // The offset of an entry is the node id to go on with.
  for (uint64_t node = std::max(in.offset, BlobTable::kFirstNode); table_.next(node, entry, name);
       node = entry.node + 1) {
    fuse_dirent item{};
    item.ino = entry.node;
    item.off = entry.node + 1;
    item.namelen = static_cast<uint32_t>(name.size());
    item.type = S_IFREG >> 12;
    size_t size = FUSE_DIRENT_ALIGN(FUSE_NAME_OFFSET + name.size());
    if (out.size() + size > in.size) break;
    size_t at = out.size();
    out.resize(at + size);
    std::memcpy(out.data() + at, &item, FUSE_NAME_OFFSET);
    std::memcpy(out.data() + at + FUSE_NAME_OFFSET, name.data(), name.size());
  }
  reply(header.unique, 0, out);
}

void BlobFs::Server::statfs(const fuse_in_header& header) {
  fuse_statfs_out out{};
  out.st.files = table_.count();
  out.st.bsize = out.st.frsize = 4096;
  out.st.namelen = 255;
  reply_with(header.unique, out);
}

void BlobFs::Server::forget(Bytes body, bool batch, uint64_t node) {
  Cursor cursor(body);
  if (!batch) return table_.forget(node, cursor.take<uint64_t>());
  auto count = cursor.take<uint32_t>();
  cursor.take<uint32_t>();
  for (uint32_t i = 0; i < count; ++i) {
    auto one = cursor.take<fuse_forget_one>();
    if (!cursor.ok()) return;
    table_.forget(one.nodeid, one.nlookup);
  }
}

Result<> BlobFs::Server::ask_again() {
  fuse_out_header header{.len = sizeof header, .error = kNotifyResend, .unique = 0};
  if (::write(device_.get(), &header, sizeof header) == sizeof header) return {};
  if (errno == EINVAL)
    return hydrant::fail(Code::kUnsupported, "this kernel cannot send requests again: it takes Linux 6.9");
  return hydrant::fail_sys(errno, "ask the kernel for what the dead hydrantd had read");
}

void BlobFs::Server::forget_name(const std::string& name) {
  fuse_notify_inval_entry_out out{};
  out.parent = FUSE_ROOT_ID;
  out.namelen = static_cast<uint32_t>(name.size());
  fuse_out_header header{};
  header.error = FUSE_NOTIFY_INVAL_ENTRY;
  header.len = static_cast<uint32_t>(sizeof header + sizeof out + name.size() + 1);
  iovec parts[3] = {{&header, sizeof header}, {&out, sizeof out}, {const_cast<char*>(name.c_str()), name.size() + 1}};
  if (::writev(device_.get(), parts, 3) < 0 && errno != ENOENT && errno != ENODEV && errno != ENOTDIR)
    log::warn("fuse-notify-refused", {{"errno", errno}});
}

}  // namespace hydrant::front
