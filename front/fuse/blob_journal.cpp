#include "front/fuse/blob_journal.h"

#include <atomic>

namespace hydrant::front {

Result<BlobJournal> BlobJournal::create() {
  HYDRANT_TRY(auto memory, SharedMemory::create("hydrant-blobs", proto::kHandoverSize));
  proto::encode_handover_header(memory.bytes().first(proto::kHandoverHeader), 0);
  return BlobJournal(std::move(memory));
}

Result<BlobJournal> BlobJournal::open(Fd memory) {
  HYDRANT_TRY(auto mapped, SharedMemory::open(std::move(memory), proto::kHandoverSize));
  BlobJournal journal(std::move(mapped));
  journal.high_water_ = load_le<uint64_t>(journal.memory_.bytes().data() + proto::kHandoverHighWater);
  return journal;
}

Result<proto::Handover> BlobJournal::read() const { return proto::decode_handover(memory_.bytes()); }

void BlobJournal::put(const proto::HandedBlob& blob) {
  if (uint64_t needed = blob.node - proto::kHandoverFirstNode + 1; needed > high_water_)
    memory_.store(proto::kHandoverHighWater, high_water_ = needed);
  proto::encode_handover_slot(memory_.bytes().subspan(proto::handover_slot(blob.node), proto::kHandoverSlot), blob);
  store(blob.node, proto::kHandoverUsed, uint64_t{1});
}

void BlobJournal::erase(uint64_t node) {
  store(node, proto::kHandoverUsed, uint64_t{0});
  std::atomic_signal_fence(std::memory_order_seq_cst);  // cleared before the slot's next owner fills it
}

}  // namespace hydrant::front
