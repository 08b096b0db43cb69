// Staging memory that the server can see: one sealed memfd, cut into slots of equal size.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <vector>

#include "base/clock.h"
#include "base/error.h"
#include "base/shared_memory.h"
#include "fetch/transport/control.h"

namespace hydrant::fetch {

// Thread-safe. Shared by a control and the handles it gave out.
class WindowSlots final : public Staging::Owner, public std::enable_shared_from_this<WindowSlots> {
 public:
  static Result<std::shared_ptr<WindowSlots>> create(size_t slot_bytes, unsigned slots);

  int memory() const { return memory_.fd().get(); }  // what WINDOW passes; cannot shrink or grow any more
  size_t slot_bytes() const { return slot_bytes_; }

  // kTooSlow when every slot is in use until the deadline. The slot used last comes first: it is warm.
  Result<Staging> acquire(Deadline deadline);
  // As ObjectHandle::stage: waits for nothing.
  std::optional<Staging> stage(size_t size);
  // Where `bytes` stands in the window, if all of it does.
  std::optional<uint64_t> offset_of(Bytes bytes) const;
  // Gives the memory of unused slots back to the system.
  void trim();

  // The slot at `offset` was named in a frame whose answer will not come: the server may still write from it, at any
  // time, for as long as it has the window. So it is never used again, and the connection is to be replaced.
  void retire(uint64_t offset);
  bool worn() const;  // some slot was retired

 private:
  WindowSlots(SharedMemory memory, size_t slot_bytes, unsigned slots);
  void give_back(MutableBytes memory) override;

  std::byte* at() const { return memory_.bytes().data(); }

  const SharedMemory memory_;
  const size_t slot_bytes_;
  const unsigned slots_;

  mutable std::mutex mutex_;
  std::condition_variable freed_;
  std::vector<unsigned> free_;  // used as a stack
  std::vector<bool> touched_;
  std::vector<bool> retired_;
  bool worn_ = false;
};

}  // namespace hydrant::fetch
