#include "fetch/transport/window_slots.h"

#include <fcntl.h>

#include <cerrno>
#include <functional>

namespace hydrant::fetch {

Result<std::shared_ptr<WindowSlots>> WindowSlots::create(size_t slot_bytes, unsigned slots) {
  HYDRANT_TRY(auto memory, SharedMemory::create("hydrant-window", slot_bytes * slots));
  return std::shared_ptr<WindowSlots>(new WindowSlots(std::move(memory), slot_bytes, slots));
}

WindowSlots::WindowSlots(SharedMemory memory, size_t slot_bytes, unsigned slots)
    : memory_(std::move(memory)), slot_bytes_(slot_bytes), slots_(slots), touched_(slots), retired_(slots) {
  for (unsigned slot = slots; slot-- > 0;) free_.push_back(slot);
}

Result<Staging> WindowSlots::acquire(Deadline deadline) {
  std::unique_lock lock(mutex_);
  if (!freed_.wait_until(lock, deadline.at(), [&] { return !free_.empty(); }))
    return fail(Code::kTooSlow, "every staging area is in use");
  unsigned slot = free_.back();
  free_.pop_back();
  touched_[slot] = true;
  return Staging(shared_from_this(), MutableBytes(at() + slot * slot_bytes_, slot_bytes_));
}

void WindowSlots::give_back(MutableBytes memory) {
  {
    std::lock_guard lock(mutex_);
    auto slot = unsigned((memory.data() - at()) / slot_bytes_);
    if (retired_[slot]) return;
    free_.push_back(slot);
  }
  freed_.notify_one();
}

std::optional<Staging> WindowSlots::stage(size_t size) {
  if (size > slot_bytes_) return std::nullopt;
  auto staging = acquire(Deadline(Instant::min()));
  return staging ? std::optional(*std::move(staging)) : std::nullopt;
}

std::optional<uint64_t> WindowSlots::offset_of(Bytes bytes) const {
  std::less_equal<const std::byte*> not_after;
  const std::byte* end = at() + slot_bytes_ * slots_;
  if (!not_after(at(), bytes.data()) || !not_after(bytes.data() + bytes.size(), end)) return std::nullopt;
  return uint64_t(bytes.data() - at());
}

void WindowSlots::retire(uint64_t offset) {
  std::lock_guard lock(mutex_);
  retired_[offset / slot_bytes_] = true;
  worn_ = true;
}

bool WindowSlots::worn() const {
  std::lock_guard lock(mutex_);
  return worn_;
}

void WindowSlots::trim() {
  std::lock_guard lock(mutex_);
  for (unsigned slot : free_) {
    if (!touched_[slot]) continue;
    touched_[slot] = false;
    ::fallocate(memory_.fd().get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, off_t(slot * slot_bytes_),
                off_t(slot_bytes_));
  }
}

}  // namespace hydrant::fetch
