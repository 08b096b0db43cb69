// What a hydrantd tells its successor about the fanotify events that it has read and not answered
// (docs/formats/handover.md). The kernel knows them by the number of a descriptor alone, and tells nobody of them
// again. In memory that outlives the process, changed in place: a death at any instruction leaves every slot either
// whole or free.
#pragma once

#include <cstdint>
#include <vector>

#include "base/byte_range.h"
#include "base/bytes.h"
#include "base/error.h"

namespace hydrant::proto {

inline constexpr uint32_t kHandedEventsVersion = 1;
inline constexpr size_t kHandedEventsHeader = 4096;
inline constexpr size_t kHandedEventsSlot = 64;
inline constexpr uint64_t kHandedEventsSlots = 65536;  // by the event's number; one that is higher is not recorded
inline constexpr size_t kHandedEventsSize = kHandedEventsHeader + kHandedEventsSlots * kHandedEventsSlot;  // sparse

inline constexpr size_t kHandedEventUsed = 0;         // in a slot, 8 bytes: 1 in use. Written last in, cleared first
inline constexpr size_t kHandedEventsHighWater = 24;  // in the header, 8 bytes: no slot from this one on was ever used
// In the header, 8 bytes each, the keeper's and its guards' (daemon/keeper/guard.h): how many guards were made, and
// which of them is the latest that runs.
inline constexpr size_t kHandedEventsGuardsMade = 32;
inline constexpr size_t kHandedEventsGuard = 40;

struct HandedEvent {
  uint64_t number = 0;  // of the descriptor that it was read with
  uint64_t device = 0;  // of the file
  uint64_t inode = 0;
  ByteRange range{};
  bool operator==(const HandedEvent&) const = default;
};

inline size_t handed_event_slot(uint64_t number) {
  return kHandedEventsHeader + static_cast<size_t>(number) * kHandedEventsSlot;
}

void encode_handed_events_header(MutableBytes out, uint64_t high_water);
// Everything but the mark that the slot is in use.
void encode_handed_event(MutableBytes slot, const HandedEvent& event);
Buffer encode_handed_events(const std::vector<HandedEvent>& events);
// kCorrupt for anything inconsistent, kUnsupported for a later version.
Result<std::vector<HandedEvent>> decode_handed_events(Bytes bytes);

}  // namespace hydrant::proto
