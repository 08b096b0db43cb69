// The events that were read and not answered, in memory that outlives this process when somebody else holds it too
// (proto/handed_events.h says what stands in it and why it is whole at any moment).
#pragma once

#include "base/error.h"
#include "base/shared_memory.h"
#include "proto/handed_events.h"

namespace hydrant::front {

// An event's slot belongs to whoever has to answer it; put() is for the one thread that reads events. No call of a
// journal that is there allocates or fails.
class EventJournal {
 public:
  static Result<EventJournal> create();
  // Of a predecessor. kCorrupt for memory of another shape.
  static Result<EventJournal> open(Fd memory);

  Result<std::vector<proto::HandedEvent>> read() const;
  const Fd& memory() const { return memory_.fd(); }

  // One whose number is too high for the record goes without.
  void put(const proto::HandedEvent& event);
  void erase(int number);

 private:
  explicit EventJournal(SharedMemory memory) : memory_(std::move(memory)) {}

  SharedMemory memory_;
  uint64_t high_water_ = 0;
};

}  // namespace hydrant::front
