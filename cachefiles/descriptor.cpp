#include "cachefiles/descriptor.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <cerrno>
#include <string_view>

#include "base/check.h"
#include "base/log.h"

namespace hydrant::cachefiles {
namespace {

// Of the hand for one file that is opened: few enough to be quick where nothing can be closed.
constexpr int kSteps = 64;
// Files that are cleaned for one that is opened, once too many are open: each costs a sync.
constexpr int kCleanings = 4;

// From the file's handle, which has the generation of its inode; else from its time of birth. 0: neither is to be had.
uint64_t incarnation_of(int fd) {
  struct {
    file_handle head;
    std::array<char, MAX_HANDLE_SZ> bytes;
  } handle;
  handle.head.handle_bytes = handle.bytes.size();
  int mount;
  if (::name_to_handle_at(fd, "", &handle.head, &mount, AT_EMPTY_PATH) == 0) {
    std::string_view bytes(reinterpret_cast<const char*>(handle.head.f_handle), handle.head.handle_bytes);
    return std::hash<std::string_view>{}(bytes) | 1;
  }
  struct statx status {};
  if (::statx(fd, "", AT_EMPTY_PATH, STATX_BTIME, &status) != 0 || !(status.stx_mask & STATX_BTIME)) return 0;
  return (uint64_t(status.stx_btime.tv_sec) * 1'000'000'000 + status.stx_btime.tv_nsec) | 1;
}

}  // namespace

Descriptor::Descriptor(Descriptors& pool, Fd fd, InodeId id) : pool_(pool), id_(id) { pool_.add(*this, std::move(fd)); }

Descriptor::~Descriptor() { pool_.remove(*this); }

bool Descriptor::is_this(int fd) const {
  struct stat stat;
  return ::fstat(fd, &stat) == 0 && InodeId::of(stat) == id_ && S_ISREG(stat.st_mode) &&
         incarnation_of(fd) == incarnation_;
}

void Descriptor::let_close(std::weak_ptr<Reopener> by) {
  incarnation_ = incarnation_of(fd_.get());
  if (!incarnation_) return;
  by_ = std::move(by);
  state_.fetch_and(~kKept, std::memory_order_release);  // pairs with the acquire of the hand, which reads by_
}

Descriptor::Use Descriptor::reopen() {
  auto by = by_.lock();
  if (!by) return Use(nullptr, -ESTALE);
  pool_.make_room();
  std::lock_guard lock(pool_.reopening(*this));
  if (!(state_.fetch_add(1, std::memory_order_acquire) & kClosed)) return Use(this, fd_.get());
  Fd fd = by->open_again();
  int err = fd ? is_this(fd.get()) ? 0 : -ESTALE : -errno;
  if (err) {
    state_.fetch_sub(1, std::memory_order_relaxed);
    log::warn("cachefiles.not_reopened", {{"inode", id_.inode}, {"errno", -err}});
    return Use(nullptr, err);
  }
  pool_.reopened_.fetch_add(1, std::memory_order_relaxed);
  pool_.add(*this, std::move(fd));
  return Use(this, fd_.get());
}

Descriptors::~Descriptors() { HYDRANT_CHECK(!hand_, "a backing file outlives its engine"); }

void Descriptors::add(Descriptor& descriptor, Fd fd) {
  std::lock_guard lock(mutex_);
  descriptor.fd_ = std::move(fd);
  descriptor.recent_.store(true, std::memory_order_relaxed);
  link(descriptor);
  descriptor.state_.fetch_and(~Descriptor::kClosed, std::memory_order_release);
}

void Descriptors::remove(Descriptor& descriptor) {
  std::lock_guard lock(mutex_);
  if (descriptor.next_) unlink(descriptor);
}

void Descriptors::link(Descriptor& descriptor) {
  open_.fetch_add(1, std::memory_order_relaxed);
  if (!hand_) hand_ = descriptor.next_ = descriptor.previous_ = &descriptor;
  // Behind the hand: the last one that it comes to.
  descriptor.next_ = hand_;
  descriptor.previous_ = hand_->previous_;
  descriptor.previous_->next_ = &descriptor;
  hand_->previous_ = &descriptor;
}

void Descriptors::unlink(Descriptor& descriptor) {
  open_.fetch_sub(1, std::memory_order_relaxed);
  if (hand_ == &descriptor) hand_ = descriptor.next_ == &descriptor ? nullptr : descriptor.next_;
  descriptor.previous_->next_ = descriptor.next_;
  descriptor.next_->previous_ = descriptor.previous_;
  descriptor.next_ = descriptor.previous_ = nullptr;
}

bool Descriptors::step(std::shared_ptr<Reopener>* dirty) {
  Fd closing;  // after the lock
  std::lock_guard lock(mutex_);
  for (int i = 0; i < kSteps && hand_; ++i) {
    Descriptor& at = *hand_;
    hand_ = at.next_;
    if (at.recent_.exchange(false, std::memory_order_relaxed)) continue;
    uint32_t state = 0;
    if (at.state_.compare_exchange_strong(state, Descriptor::kClosed, std::memory_order_acquire)) {
      closing = std::move(at.fd_);
      unlink(at);
      return true;
    }
    if (state == Descriptor::kDirty && !*dirty) *dirty = at.by_.lock();
  }
  return false;
}

void Descriptors::make_room() {
  for (int cleanings = 0; open() >= limit_;) {
    std::shared_ptr<Reopener> dirty;
    if (step(&dirty)) continue;
    // Up to half as many again are waited for: the maintenance makes everything clean every few seconds.
    if (open() < limit_ + limit_ / 2 || cleanings++ == kCleanings) return;
    if (dirty) dirty->make_clean();
  }
}

}  // namespace hydrant::cachefiles
