// Publishes a backing file to readers that take no lock, and takes it back once the last of them left.
#pragma once

#include <atomic>
#include <memory>
#include <utility>

#include "cachefiles/backing_file.h"

namespace hydrant::cachefiles {

// Readers count themselves in one of two phases, then load the pointer. `replace` stores the new pointer, then for each
// phase sends newcomers to the other one and waits for it to drain: whoever could hold the old pointer has left, and a
// steady stream of new readers cannot delay it. Everything is sequentially consistent: the count of a reader that got
// the old pointer is visible to the drain that follows.
class FileSlot {
 public:
  class Use {
   public:
    Use(Use&& other) noexcept : slot_(std::exchange(other.slot_, nullptr)), phase_(other.phase_), file_(other.file_) {}
    Use& operator=(Use&&) = delete;
    ~Use() {
      if (slot_ && slot_->users_[phase_].fetch_sub(1) == 1) slot_->users_[phase_].notify_all();
    }
    BackingFile* operator->() const { return file_; }
    explicit operator bool() const { return file_ != nullptr; }

   private:
    friend class FileSlot;
    Use(const FileSlot* slot, unsigned phase) : slot_(slot), phase_(phase) {}
    const FileSlot* slot_;
    unsigned phase_;
    BackingFile* file_ = nullptr;
  };

  // Lock-free. Keep it for one operation only.
  Use use() const {
    unsigned phase = phase_.load();
    users_[phase].fetch_add(1);
    Use use(this, phase);
    use.file_ = file_.load();
    return use;
  }

  // Callers serialise. Blocks while a reader is inside a system call on the old file.
  std::shared_ptr<BackingFile> replace(std::shared_ptr<BackingFile> next) {
    file_.store(next.get());
    auto old = std::exchange(owner_, std::move(next));
    for (int i = 0; i < 2; ++i) {
      unsigned phase = phase_.load();
      phase_.store(1 - phase);
      for (unsigned n = users_[phase].load(); n != 0; n = users_[phase].load()) users_[phase].wait(n);
    }
    return old;
  }

 private:
  std::atomic<BackingFile*> file_{nullptr};
  std::atomic<unsigned> phase_{0};
  mutable std::atomic<unsigned> users_[2] = {0, 0};
  std::shared_ptr<BackingFile> owner_;  // the reference behind file_
};

}  // namespace hydrant::cachefiles
