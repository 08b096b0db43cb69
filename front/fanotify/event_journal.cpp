#include "front/fanotify/event_journal.h"

#include <sys/mman.h>
#include <sys/stat.h>

#include <cerrno>
#include <utility>

namespace hydrant::front {

Result<EventJournal> EventJournal::create() {
  EventJournal journal(Fd(::memfd_create("hydrant-events", MFD_CLOEXEC | MFD_ALLOW_SEALING)));
  if (!journal.memory_ || ::ftruncate(journal.memory_.get(), proto::kHandedEventsSize) ||
      ::fcntl(journal.memory_.get(), F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL))
    return fail_sys(errno, "memfd for the record of events");
  HYDRANT_TRY_VOID(journal.map());
  proto::encode_handed_events_header(MutableBytes(journal.base_, proto::kHandedEventsHeader), 0);
  return journal;
}

Result<EventJournal> EventJournal::open(Fd memory) {
  EventJournal journal(std::move(memory));
  struct stat status {};
  if (::fstat(journal.memory_.get(), &status)) return fail_sys(errno, "stat the record of events");
  const int seals = ::fcntl(journal.memory_.get(), F_GET_SEALS);
  if (status.st_size != off_t(proto::kHandedEventsSize) || seals < 0 || !(seals & F_SEAL_SHRINK))
    return fail(Code::kCorrupt, "record of events of another shape");
  HYDRANT_TRY_VOID(journal.map());
  journal.high_water_ = load_le<uint64_t>(journal.base_ + proto::kHandedEventsHighWater);
  return journal;
}

Result<> EventJournal::map() {
  void* at = ::mmap(nullptr, proto::kHandedEventsSize, PROT_READ | PROT_WRITE, MAP_SHARED, memory_.get(), 0);
  if (at == MAP_FAILED) return fail_sys(errno, "map the record of events");
  base_ = static_cast<std::byte*>(at);
  return {};
}

EventJournal::EventJournal(EventJournal&& other) noexcept
    : memory_(std::move(other.memory_)), base_(std::exchange(other.base_, nullptr)), high_water_(other.high_water_) {}

EventJournal::~EventJournal() {
  if (base_) ::munmap(base_, proto::kHandedEventsSize);
}

Result<std::vector<proto::HandedEvent>> EventJournal::read() const {
  return proto::decode_handed_events({base_, proto::kHandedEventsSize});
}

// The successor reads after our death: the order in which the compiler emits the stores is all that matters.
void EventJournal::store(size_t at, uint64_t value) {
  __atomic_store_n(reinterpret_cast<uint64_t*>(base_ + at), value, __ATOMIC_RELEASE);
}

void EventJournal::put(const proto::HandedEvent& event) {
  if (event.number >= proto::kHandedEventsSlots) return;
  if (event.number >= high_water_) store(proto::kHandedEventsHighWater, high_water_ = event.number + 1);
  const size_t at = proto::handed_event_slot(event.number);
  proto::encode_handed_event(MutableBytes(base_ + at, proto::kHandedEventsSlot), event);
  store(at + proto::kHandedEventUsed, 1);
}

void EventJournal::erase(int number) {
  if (uint64_t(number) < proto::kHandedEventsSlots)
    store(proto::handed_event_slot(uint64_t(number)) + proto::kHandedEventUsed, 0);
}

}  // namespace hydrant::front
