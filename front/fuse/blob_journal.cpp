#include "front/fuse/blob_journal.h"

#include <sys/mman.h>
#include <sys/stat.h>

#include <atomic>
#include <cerrno>

namespace hydrant::front {

Result<BlobJournal> BlobJournal::create() {
  BlobJournal journal(Fd(::memfd_create("hydrant-blobs", MFD_CLOEXEC | MFD_ALLOW_SEALING)));
  if (!journal.memory_) return fail_sys(errno, "memfd for the hand-over record");
  if (::ftruncate(journal.memory_.get(), proto::kHandoverSize)) return fail_sys(errno, "size the hand-over record");
  // Nobody can shorten it under the mapping.
  if (::fcntl(journal.memory_.get(), F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL))
    return fail_sys(errno, "seal the hand-over record");
  HYDRANT_TRY_VOID(journal.map());
  proto::encode_handover_header(MutableBytes(journal.base_, proto::kHandoverHeader), 0);
  return journal;
}

Result<BlobJournal> BlobJournal::open(Fd memory) {
  BlobJournal journal(std::move(memory));
  struct stat status {};
  if (::fstat(journal.memory_.get(), &status)) return fail_sys(errno, "stat the hand-over record");
  int seals = ::fcntl(journal.memory_.get(), F_GET_SEALS);
  if (status.st_size != off_t(proto::kHandoverSize) || seals < 0 || !(seals & F_SEAL_SHRINK))
    return fail(Code::kCorrupt, "hand-over record of another shape");
  HYDRANT_TRY_VOID(journal.map());
  journal.high_water_ = load_le<uint64_t>(journal.base_ + proto::kHandoverHighWater);
  return journal;
}

Result<> BlobJournal::map() {
  void* at = ::mmap(nullptr, proto::kHandoverSize, PROT_READ | PROT_WRITE, MAP_SHARED, memory_.get(), 0);
  if (at == MAP_FAILED) return fail_sys(errno, "map the hand-over record");
  base_ = static_cast<std::byte*>(at);
  return {};
}

BlobJournal::BlobJournal(BlobJournal&& other) noexcept
    : memory_(std::move(other.memory_)), base_(std::exchange(other.base_, nullptr)), high_water_(other.high_water_) {}

BlobJournal::~BlobJournal() {
  if (base_) ::munmap(base_, proto::kHandoverSize);
}

Result<proto::Handover> BlobJournal::read() const { return proto::decode_handover({base_, proto::kHandoverSize}); }

void BlobJournal::put(const proto::HandedBlob& blob) {
  if (uint64_t needed = blob.node - proto::kHandoverFirstNode + 1; needed > high_water_)
    store_at(proto::kHandoverHighWater, high_water_ = needed);
  MutableBytes slot(base_ + proto::handover_slot(blob.node), proto::kHandoverSlot);
  proto::encode_handover_slot(slot, blob);
  store(blob.node, proto::kHandoverUsed, uint64_t{1});
}

void BlobJournal::erase(uint64_t node) {
  store(node, proto::kHandoverUsed, uint64_t{0});
  std::atomic_signal_fence(std::memory_order_seq_cst);  // cleared before the slot's next owner fills it
}

}  // namespace hydrant::front
