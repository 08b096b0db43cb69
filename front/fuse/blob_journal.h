// The hand-over record of the blob file system, in memory that outlives this process when somebody else holds it too
// (proto/handover.h says what stands in it and why it is whole at any moment).
#pragma once

#include <string>

#include "base/error.h"
#include "base/fd.h"
#include "proto/handover.h"

namespace hydrant::front {

// Not thread-safe: the blob table's lock covers it. No call allocates or fails.
class BlobJournal {
 public:
  static Result<BlobJournal> create();
  // Of a predecessor. kCorrupt for memory of another shape.
  static Result<BlobJournal> open(Fd memory);
  BlobJournal(BlobJournal&& other) noexcept;
  BlobJournal& operator=(BlobJournal&&) = delete;
  ~BlobJournal();

  Result<proto::Handover> read() const;
  const Fd& memory() const { return memory_; }

  void put(const proto::HandedBlob& blob);
  void erase(uint64_t node);
  void set_lookups(uint64_t node, uint64_t count) { store(node, proto::kHandoverLookups, count); }
  void set_opens(uint64_t node, uint64_t count) { store(node, proto::kHandoverOpens, count); }
  void forget_name(uint64_t node) { store(node, proto::kHandoverNamed, uint32_t{0}); }

 private:
  explicit BlobJournal(Fd memory) : memory_(std::move(memory)) {}
  Result<> map();
  // One store, not moved before what was stored earlier: the successor reads after our death, so the order in which
  // the compiler emits the stores is all that matters.
  template <class T>
  void store(uint64_t node, size_t field, T value) {
    store_at(proto::handover_slot(node) + field, value);
  }
  template <class T>
  void store_at(size_t at, T value) {
    __atomic_store_n(reinterpret_cast<T*>(base_ + at), value, __ATOMIC_RELEASE);
  }

  Fd memory_;
  std::byte* base_ = nullptr;
  uint64_t high_water_ = 0;
};

}  // namespace hydrant::front
