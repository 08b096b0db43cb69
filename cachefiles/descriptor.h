// The descriptors of backing files: as many stay open as the process can afford, the others are opened again when they
// are needed.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <utility>

#include "base/fd.h"
#include "cachefiles/in_use.h"

namespace hydrant::cachefiles {

class Descriptors;

// Who can open a backing file once more.
class Reopener {
 public:
  // What stands under the file's name now.
  virtual Fd open_again() = 0;
  // Makes the file's bytes durable, so that its descriptor may be closed. Blocks on the disk.
  virtual void make_clean() = 0;

 protected:
  ~Reopener() = default;
};

// The descriptor of one file. It is closed only while nobody uses it, while the file has a name to be found by, and
// while nothing of it waits for a sync: the kernel tells of a failed write-back whoever had the file open then, and
// might tell nobody else. Thread-safe.
class Descriptor {
 public:
  // The right to use the number. Keep it for one operation only.
  class Use {
   public:
    Use(Use&& other) noexcept : owner_(std::exchange(other.owner_, nullptr)), number_(other.number_) {}
    Use& operator=(Use&&) = delete;
    ~Use() {
      if (owner_) owner_->state_.fetch_sub(1, std::memory_order_release);  // pairs with the acquire of close_if_idle
    }
    explicit operator bool() const { return number_ >= 0; }
    int get() const { return number_ >= 0 ? number_ : -1; }
    int error() const { return number_ >= 0 ? 0 : number_; }  // -errno

   private:
    friend class Descriptor;
    Use(Descriptor* owner, int number) : owner_(owner), number_(number) {}
    Descriptor* owner_;
    int number_;  // or -errno
  };

  Descriptor(Descriptors& pool, Fd fd, InodeId id);
  ~Descriptor();
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;

  // Takes no lock while the descriptor is open.
  Use use() {
    // Pairs with the release in add(): whoever sees it open sees its number.
    if (state_.fetch_add(1, std::memory_order_acquire) & kClosed) [[unlikely]] {
      state_.fetch_sub(1, std::memory_order_relaxed);
      return reopen();
    }
    if (!recent_.load(std::memory_order_relaxed)) recent_.store(true, std::memory_order_relaxed);
    return Use(this, fd_.get());
  }

  InodeId id() const { return id_; }

  // From now on it may be closed, and `by` opens it again. Once, by whoever gave the file its name or found
  // it under one.
  void let_close(std::weak_ptr<Reopener> by);
  // The file is about to lose its name. One that is closed already cannot be used any more.
  void keep() { state_.fetch_or(kKept, std::memory_order_relaxed); }

  // Whether bytes wait for a sync. Set by whoever wrote them, while it uses the descriptor.
  void set_dirty() {
    if (!(state_.load(std::memory_order_relaxed) & kDirty)) state_.fetch_or(kDirty, std::memory_order_acq_rel);
  }
  bool take_dirty() { return state_.fetch_and(~kDirty, std::memory_order_acq_rel) & kDirty; }
  bool dirty() const { return state_.load(std::memory_order_acquire) & kDirty; }

 private:
  friend class Descriptors;
  static constexpr uint32_t kClosed = 1u << 31, kKept = 1u << 30, kDirty = 1u << 29;

  Use reopen();
  bool is_this(int fd) const;

  Descriptors& pool_;
  const InodeId id_;
  uint64_t incarnation_ = 0;  // tells files of one inode number from each other; 0: the file system cannot
  // Users below, flags above. It is open exactly while kClosed is clear; who sets kClosed found everything else clear.
  std::atomic<uint32_t> state_{kKept};
  Fd fd_;  // written under the pool's lock, while kClosed is set
  std::atomic<bool> recent_{true};
  std::weak_ptr<Reopener> by_;
  // Of the pool's ring; its lock.
  Descriptor* next_ = nullptr;
  Descriptor* previous_ = nullptr;
};

// The open descriptors of an engine. Second chance: a hand goes round, and closes what was not used since it last came
// by. Thread-safe. Outlives its descriptors.
class Descriptors {
 public:
  // More than `limit` are open only while each is in use, kept, or dirty.
  explicit Descriptors(size_t limit) : limit_(limit) {}
  ~Descriptors();

  // Before a file is opened. Blocks on the disk when too many are open and dirty.
  void make_room();
  size_t open() const { return open_.load(std::memory_order_relaxed); }
  uint64_t reopened() const { return reopened_.load(std::memory_order_relaxed); }

 private:
  friend class Descriptor;
  void add(Descriptor& descriptor, Fd fd);
  void remove(Descriptor& descriptor);
  void link(Descriptor& descriptor);
  void unlink(Descriptor& descriptor);
  // Takes steps of the hand until one is closed. Otherwise *dirty may be somebody who could be cleaned.
  bool step(std::shared_ptr<Reopener>* dirty);
  std::mutex& reopening(const Descriptor& descriptor) {
    return reopening_[reinterpret_cast<uintptr_t>(&descriptor) / sizeof(Descriptor) % reopening_.size()];
  }

  const size_t limit_;
  std::atomic<size_t> open_{0};
  std::atomic<uint64_t> reopened_{0};
  std::array<std::mutex, 16> reopening_;  // one opening of a file at a time; held across the disk
  std::mutex mutex_;                      // the ring
  Descriptor* hand_ = nullptr;
};

}  // namespace hydrant::cachefiles
