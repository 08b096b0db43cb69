#include "proto/handed_events.h"

#include <algorithm>
#include <cstring>

namespace hydrant::proto {

namespace {
constexpr char kMagic[8] = {'h', 'y', 'd', 'r', 'e', 'v', 'n', 't'};
constexpr size_t kDevice = 8, kInode = 16, kBegin = 24, kEnd = 32;
}  // namespace

void encode_handed_events_header(MutableBytes out, uint64_t high_water) {
  std::memcpy(out.data(), kMagic, sizeof kMagic);
  store_le<uint32_t>(out.data() + 8, kHandedEventsVersion);
  store_le<uint32_t>(out.data() + 12, kHandedEventsSlot);
  store_le<uint64_t>(out.data() + 16, kHandedEventsSlots);
  store_le<uint64_t>(out.data() + kHandedEventsHighWater, high_water);
}

void encode_handed_event(MutableBytes slot, const HandedEvent& event) {
  store_le<uint64_t>(slot.data() + kDevice, event.device);
  store_le<uint64_t>(slot.data() + kInode, event.inode);
  store_le<uint64_t>(slot.data() + kBegin, event.range.begin);
  store_le<uint64_t>(slot.data() + kEnd, event.range.end);
}

Buffer encode_handed_events(const std::vector<HandedEvent>& events) {
  uint64_t high = 0;
  for (const HandedEvent& event : events) high = std::max(high, event.number + 1);
  Buffer out(handed_event_slot(high));
  encode_handed_events_header(out, high);
  for (const HandedEvent& event : events) {
    MutableBytes slot = MutableBytes(out).subspan(handed_event_slot(event.number), kHandedEventsSlot);
    encode_handed_event(slot, event);
    store_le<uint64_t>(slot.data() + kHandedEventUsed, 1);
  }
  return out;
}

Result<std::vector<HandedEvent>> decode_handed_events(Bytes bytes) {
  if (bytes.size() < kHandedEventsHeader || std::memcmp(bytes.data(), kMagic, sizeof kMagic) != 0)
    return fail(Code::kCorrupt, "not a record of events");
  if (auto version = load_le<uint32_t>(bytes.data() + 8); version != kHandedEventsVersion)
    return fail(Code::kUnsupported, "record of events of version " + std::to_string(version));
  if (load_le<uint32_t>(bytes.data() + 12) != kHandedEventsSlot ||
      load_le<uint64_t>(bytes.data() + 16) != kHandedEventsSlots)
    return fail(Code::kCorrupt, "record of events: slots of another size or number");
  const auto high = load_le<uint64_t>(bytes.data() + kHandedEventsHighWater);
  if (high > kHandedEventsSlots || (bytes.size() - kHandedEventsHeader) / kHandedEventsSlot < high)
    return fail(Code::kCorrupt, "record of events: slots are missing");

  std::vector<HandedEvent> events;
  for (uint64_t number = 0; number < high; ++number) {
    const std::byte* slot = bytes.data() + handed_event_slot(number);
    const auto used = load_le<uint64_t>(slot + kHandedEventUsed);
    if (used == 0) continue;
    HandedEvent event{.number = number,
                      .device = load_le<uint64_t>(slot + kDevice),
                      .inode = load_le<uint64_t>(slot + kInode),
                      .range = {load_le<uint64_t>(slot + kBegin), load_le<uint64_t>(slot + kEnd)}};
    if (used != 1 || event.range.begin > event.range.end)
      return fail(Code::kCorrupt, "record of events: an impossible event");
    events.push_back(event);
  }
  return events;
}

}  // namespace hydrant::proto
