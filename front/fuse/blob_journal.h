// The hand-over record of the blob file system, in memory that outlives this process when somebody else holds it too
// (proto/handover.h says what stands in it and why it is whole at any moment).
#pragma once

#include <string>

#include "base/error.h"
#include "base/shared_memory.h"
#include "proto/handover.h"

namespace hydrant::front {

// Not thread-safe: the blob table's lock covers it. No call allocates or fails.
class BlobJournal {
 public:
  static Result<BlobJournal> create();
  // Of a predecessor. kCorrupt for memory of another shape.
  static Result<BlobJournal> open(Fd memory);

  Result<proto::Handover> read() const;
  const Fd& memory() const { return memory_.fd(); }

  void put(const proto::HandedBlob& blob);
  void erase(uint64_t node);
  void set_lookups(uint64_t node, uint64_t count) { store(node, proto::kHandoverLookups, count); }
  void set_opens(uint64_t node, uint64_t count) { store(node, proto::kHandoverOpens, count); }
  void forget_name(uint64_t node) { store(node, proto::kHandoverNamed, uint32_t{0}); }

 private:
  explicit BlobJournal(SharedMemory memory) : memory_(std::move(memory)) {}
  template <class T>
  void store(uint64_t node, size_t field, T value) {
    memory_.store(proto::handover_slot(node) + field, value);
  }

  SharedMemory memory_;
  uint64_t high_water_ = 0;
};

}  // namespace hydrant::front
