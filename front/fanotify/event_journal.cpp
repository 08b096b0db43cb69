#include "front/fanotify/event_journal.h"

namespace hydrant::front {

Result<EventJournal> EventJournal::create() {
  HYDRANT_TRY(auto memory, SharedMemory::create("hydrant-events", proto::kHandedEventsSize));
  proto::encode_handed_events_header(memory.bytes().first(proto::kHandedEventsHeader), 0);
  return EventJournal(std::move(memory));
}

Result<EventJournal> EventJournal::open(Fd memory) {
  HYDRANT_TRY(auto mapped, SharedMemory::open(std::move(memory), proto::kHandedEventsSize));
  EventJournal journal(std::move(mapped));
  journal.high_water_ = load_le<uint64_t>(journal.memory_.bytes().data() + proto::kHandedEventsHighWater);
  return journal;
}

Result<std::vector<proto::HandedEvent>> EventJournal::read() const {
  return proto::decode_handed_events(memory_.bytes());
}

void EventJournal::put(const proto::HandedEvent& event) {
  if (event.number >= proto::kHandedEventsSlots) return;
  if (event.number >= high_water_) memory_.store(proto::kHandedEventsHighWater, high_water_ = event.number + 1);
  const size_t at = proto::handed_event_slot(event.number);
  proto::encode_handed_event(memory_.bytes().subspan(at, proto::kHandedEventsSlot), event);
  memory_.store(at + proto::kHandedEventUsed, uint64_t{1});
}

void EventJournal::erase(int number) {
  if (uint64_t(number) < proto::kHandedEventsSlots)
    memory_.store(proto::handed_event_slot(uint64_t(number)) + proto::kHandedEventUsed, uint64_t{0});
}

}  // namespace hydrant::front
