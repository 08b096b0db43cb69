// Memory that other processes can map, and that outlives this one while one of them holds it: a memfd that can neither
// grow nor shrink, so that no mapping of it faults.
#pragma once

#include <cstddef>

#include "base/bytes.h"
#include "base/error.h"
#include "base/fd.h"

namespace hydrant {

// Mapped as long as it is there. Move-only.
class SharedMemory {
 public:
  // Zeros; `name` is for people who look into /proc. `size` > 0.
  static Result<SharedMemory> create(const char* name, size_t size);
  // Somebody else's. kCorrupt when it has another size, or may shrink.
  static Result<SharedMemory> open(Fd fd, size_t size);
  SharedMemory(SharedMemory&& other) noexcept;
  SharedMemory& operator=(SharedMemory&&) = delete;
  ~SharedMemory();

  const Fd& fd() const { return fd_; }
  MutableBytes bytes() const { return {base_, size_}; }

  // One aligned store, not moved before what was stored earlier. For a reader that comes after our death: the order in
  // which the compiler emits the stores is all that matters.
  template <class T>
  void store(size_t at, T value) {
    __atomic_store_n(reinterpret_cast<T*>(base_ + at), value, __ATOMIC_RELEASE);
  }

 private:
  SharedMemory(Fd fd, std::byte* base, size_t size) : fd_(std::move(fd)), base_(base), size_(size) {}
  static Result<SharedMemory> map(Fd fd, size_t size);

  Fd fd_;
  std::byte* base_ = nullptr;
  size_t size_ = 0;
};

}  // namespace hydrant
