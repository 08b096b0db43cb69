#include "front/fanotify/marked_server.h"

#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/stat.h>

#include <bit>
#include <cerrno>

#include "base/file.h"
#include "base/log.h"

namespace hydrant::front {

namespace {

void count(std::atomic<uint64_t>& counter) { counter.fetch_add(1, std::memory_order_relaxed); }

std::optional<FileKey> key_of(int fd) {
  struct stat status {};
  if (::fstat(fd, &status) != 0) return std::nullopt;
  return FileKey{status.st_dev, status.st_ino};
}

// An answer that comes after the time limit must not find who got the same descriptor since.
uint64_t unique_of(int event, uint32_t asked) { return uint64_t{asked} << 32 | static_cast<uint32_t>(event); }
int event_of(const PendingRead& read) { return static_cast<int>(static_cast<uint32_t>(read.unique)); }

bool is_thread_of_ours(int thread) { return ::tgkill(::getpid(), thread, 0) == 0; }

// The bdi of a super block goes with it, whoever had it mounted in whatever namespace. Where sysfs itself is gone,
// nothing is known to have ended.
bool lives(const std::string& super) {
  const std::string bdis = "/sys/class/bdi/";
  return ::access((bdis + super).c_str(), F_OK) == 0 || errno != ENOENT || ::access(bdis.c_str(), F_OK) != 0;
}

}  // namespace

MarkedFiles::Server::Server(FanGroup group, BlobJournal journal, EventJournal events, Duration read_limit)
    : group_(std::move(group)), journal_(std::move(journal)), events_(std::move(events)), pending_(read_limit) {}

MarkedFiles::Server::~Server() { finish(); }

Result<> MarkedFiles::Server::start() {
  stop_event_.reset(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!stop_event_) return fail_sys(errno, "eventfd");
  auto thread = [](const char* name, auto body) {
    return std::jthread([name, body] {
      pthread_setname_np(pthread_self(), name);
      body();
    });
  };
  for (auto& filler : fillers_) filler = thread("fanotify-fill", [this] { fill(); });
  limits_ = thread("fanotify-limits", [this] { watch_limits(); });
  reader_ = thread("fanotify", [this] { run(); });
  return {};
}

// The thread that reads events goes on: the engine's threads may still need its answers.
void MarkedFiles::Server::stop() {
  stopping_ = true;
  {
    std::lock_guard lock(queue_mutex_);
    queue_.push_front({.event = -1, .blob = nullptr, .wanted = {}});  // the end
    queued_.notify_all();
  }
  for (auto& filler : fillers_)
    if (filler.joinable()) filler.join();
  for (PendingRead& read : pending_.close()) answer(event_of(read), false);
  if (limits_.joinable()) limits_.join();
  answers_.close(Deadline::after(std::chrono::seconds(10)));
  {
    std::lock_guard lock(queue_mutex_);
    for (const Miss& miss : queue_)
      if (miss.event >= 0) answer(miss.event, false);
    queue_.clear();
  }
  std::lock_guard lock(mutex_);
  files_.clear();
}

void MarkedFiles::Server::finish() {
  if (!reader_.joinable()) return;
  ::eventfd_write(stop_event_.get(), 1);
  reader_.join();
}

void MarkedFiles::Server::run() {
  for (;;) {
    pollfd sources[] = {{group_.fd().get(), POLLIN, 0}, {stop_event_.get(), POLLIN, 0}};
    if (::poll(sources, 2, -1) < 0) continue;
    if (sources[1].revents) return;
    const auto events = group_.read();
    std::vector<std::optional<FileKey>> keys;
    for (const FanEvent& event : events) {
      keys.push_back(key_of(event.fd));
      if (keys.back())
        events_.put({static_cast<uint64_t>(event.fd), keys.back()->device, keys.back()->inode, event.range});
    }
    for (size_t i = 0; i < events.size(); ++i) take(events[i], keys[i]);
  }
}

void MarkedFiles::Server::answer(int event, bool allow) {
  group_.answer(event, allow);
  events_.erase(event);  // before the number can be another's
  ::close(event);
}

// The hot path: no disk, no wait. Right bytes or EIO: nothing goes through that is not vouched for.
void MarkedFiles::Server::take(const FanEvent& event, const std::optional<FileKey>& key) {
  if (testing_.load(std::memory_order_acquire) && tested_by(event.thread)) return answer(event.fd, false);
  if (stopping_) return answer(event.fd, is_thread_of_ours(event.thread));
  const auto file = file_of(key);
  if (!file) {
    count(errors_);
    if (const uint64_t times = ++unknown_; std::has_single_bit(times))
      log::warn("fanotify-file-unknown", {{"thread", event.thread}, {"offset", event.range.begin}, {"times", times}});
    return answer(event.fd, false);
  }
  // The engine knows what it reads and writes. The descriptors that it opened before the mark raise nothing; those that
  // it opened again, or in place of a dead predecessor's, do, and would wait for themselves.
  if (is_thread_of_ours(event.thread)) return answer(event.fd, true);
  MarkedBlob& blob = *file->blob;
  const ByteRange wanted = intersect(event.range, {0, blob.size});
  if (blob.touches && !wanted.empty()) blob.touches->note(wanted);
  if (blob.vouches(wanted)) {
    count(hits_);
    return answer(event.fd, true);
  }
  queue({.event = event.fd, .blob = file->blob, .wanted = wanted});
}

std::shared_ptr<MarkedFiles::File> MarkedFiles::Server::file_of(const std::optional<FileKey>& key) const {
  std::lock_guard lock(mutex_);
  auto at = key ? files_.find(*key) : files_.end();
  return at == files_.end() ? nullptr : at->second;
}

void MarkedFiles::Server::queue(Miss miss) {
  std::lock_guard lock(queue_mutex_);
  if (stopping_) return answer(miss.event, false);  // stop() may have looked through it for the last time
  queue_.push_back(std::move(miss));
  queued_.notify_one();
}

void MarkedFiles::Server::go_on(const proto::HandedEvent& event) {
  const auto file = file_of(FileKey{event.device, event.inode});
  if (!file) return answer(static_cast<int>(event.number), false);
  queue({.event = static_cast<int>(event.number),
         .blob = file->blob,
         .wanted = intersect(event.range, {0, file->blob->size})});
}

void MarkedFiles::Server::fill() {
  for (;;) {
    std::unique_lock lock(queue_mutex_);
    queued_.wait(lock, [&] { return !queue_.empty(); });
    if (queue_.front().event < 0) return;  // it stays, for the next one
    Miss miss = std::move(queue_.front());
    queue_.pop_front();
    lock.unlock();
    ask(std::move(miss));
  }
}

void MarkedFiles::Server::ask(Miss miss) {
  const uint64_t unique = unique_of(miss.event, asked_.fetch_add(1, std::memory_order_relaxed));
  if (slow_failures_.cover(miss.blob, miss.wanted, Clock::system().now()) ||
      !pending_.insert({.unique = unique, .blob = miss.blob, .range = miss.wanted, .wait = nullptr})) {
    count(errors_);
    return answer(miss.event, false);
  }
  auto wait = miss.blob->cookie->ensure(
      miss.wanted, [self = shared_from_this(), unique](int status) { self->supplied(unique, status); });
  if (!wait) return;
  if (auto cancel = pending_.attach(unique, std::move(wait))) cancel->cancel();
}

void MarkedFiles::Server::supplied(uint64_t unique, int status) {
  auto inside = answers_.enter();
  if (!inside) return;
  auto read = pending_.take(unique);
  if (!read) return;  // answered: the time limit passed, or we are stopping
  if (status != 0) slow_failures_.note(read->blob, read->range, read->since, Clock::system().now());
  const bool good = status == 0 && static_cast<const MarkedBlob&>(*read->blob).is_its_file();
  if (status == 0 && !good) log::error("fanotify-file-replaced", {{"why", "its cookie has another file by now"}});
  count(good ? misses_ : errors_);
  answer(event_of(*read), good);
}

void MarkedFiles::Server::watch_limits() {
  for (;;) {
    auto expired = pending_.wait_expired();
    if (expired.empty()) return;
    for (PendingRead& read : expired) {
      slow_failures_.note(read.blob, read.range, read.since, Clock::system().now());
      count(too_slow_);
      answer(event_of(read), false);
      if (read.wait) read.wait->cancel();
    }
  }
}

bool MarkedFiles::Server::tested_by(int thread) {
  std::lock_guard lock(mutex_);
  auto at = testers_.find(thread);
  if (at == testers_.end()) return false;
  at->second = true;
  return true;
}

bool MarkedFiles::Server::asks(const Fd& file, uint64_t offset) {
  const int thread = ::gettid();
  {
    std::lock_guard lock(mutex_);
    testers_[thread] = false;
    testing_.fetch_add(1, std::memory_order_release);  // pairs with the acquire in take()
  }
  char byte = 0;
  (void)!::pread(file.get(), &byte, 1, static_cast<off_t>(offset));
  std::lock_guard lock(mutex_);
  testing_.fetch_sub(1, std::memory_order_relaxed);
  const bool seen = testers_.at(thread);
  testers_.erase(thread);
  return seen;
}

Result<std::shared_ptr<MarkedFiles::File>> MarkedFiles::Server::mark(std::shared_ptr<File> file, const Fd& fd) {
  std::lock_guard marking(marking_);
  {
    std::lock_guard lock(mutex_);
    file = files_.try_emplace(file->blob->key, file).first->second;
  }
  HYDRANT_TRY_VOID(group_.mark(fd));
  file->marked = true;
  return file;
}

void MarkedFiles::Server::adopt(const proto::HandedBlob& handed, std::shared_ptr<cachefiles::Cookie> cookie) {
  std::lock_guard lock(mutex_);
  nodes_.insert(handed.node);
  // A file has a slot for each file system that reads it.
  auto& file = files_[FileKey{handed.lookups, handed.generation}];
  if (!file) {
    file = std::make_shared<File>();
    file->origin = {handed.volume, handed.id};
    file->blob = std::make_shared<MarkedBlob>();
    file->blob->key = {handed.lookups, handed.generation};
    file->blob->cookie = std::move(cookie);
    file->blob->size = handed.size;
  }
  file->uses.push_back({handed.name, handed.node});
}

std::shared_ptr<MarkedFiles::File> MarkedFiles::Server::find(const BlobOrigin& origin) const {
  std::lock_guard lock(mutex_);
  for (auto& [key, file] : files_)
    if (file->origin.volume == origin.volume && file->origin.id == origin.id) return file;
  return nullptr;
}

Result<> MarkedFiles::Server::use(const std::shared_ptr<File>& file, const std::string& super) {
  std::lock_guard lock(mutex_);
  uint64_t node = proto::kHandoverFirstNode;
  for (uint64_t used : nodes_) {
    if (used != node) break;
    ++node;
  }
  if (node - proto::kHandoverFirstNode >= proto::kHandoverNodes)
    return fail(Code::kNoSpace, "too many uses of files that are marked");
  journal_.put({.node = node,
                .generation = file->blob->key.inode,
                .size = file->blob->size,
                .lookups = file->blob->key.device,
                .opens = 1,
                .name = super,
                .volume = file->origin.volume,
                .id = file->origin.id});
  nodes_.insert(node);
  file->uses.push_back({super, node});
  return {};
}

std::vector<std::shared_ptr<MarkedFiles::File>> MarkedFiles::Server::files() const {
  std::vector<std::shared_ptr<File>> out;
  std::lock_guard lock(mutex_);
  for (auto& [key, file] : files_) out.push_back(file);
  return out;
}

void MarkedFiles::Server::collect() {
  std::lock_guard marking(marking_);
  for (const std::shared_ptr<File>& file : files()) {
    bool unused = false;
    {
      std::lock_guard lock(mutex_);
      std::erase_if(file->uses, [&](const File::Use& use) {
        if (lives(use.super)) return false;
        journal_.erase(use.node);
        nodes_.erase(use.node);
        return true;
      });
      unused = file->uses.empty() && file.use_count() == 2;  // the table, and we
      if (unused) files_.erase(file->blob->key);
    }
    // Every byte is on the disk and vouched for: the kernel needs nobody any more. And a mark keeps a file's inode.
    const auto complete = [&] { return file->blob->cookie->complete() && file->blob->is_its_file(); };
    if (file->marked.load() && (unused || complete())) {
      auto again = file->blob->cookie->backing_file();
      auto done = again ? group_.unmark(*again) : fail(std::move(again).error());
      if (done)
        file->marked = false;
      else
        log::warn("fanotify-mark-stays", {{"id", file->origin.id}, {"why", done.error().what}});
    }
  }
}

bool MarkedFiles::Server::in_use() const {
  std::lock_guard lock(mutex_);
  for (auto& [key, file] : files_)
    if (!file->uses.empty() && file->marked.load()) return true;
  return false;
}

MarkedFilesStat MarkedFiles::Server::stat() const {
  MarkedFilesStat out{.hits = hits_, .misses = misses_, .errors = errors_, .too_slow = too_slow_, .waiting = 0};
  {
    std::lock_guard lock(queue_mutex_);
    out.waiting = queue_.size();
  }
  out.waiting += pending_.count();
  for (const auto& file : files()) out.files += file->marked.load();
  return out;
}

}  // namespace hydrant::front
