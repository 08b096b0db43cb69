// The files of the blob file system: names, FUSE node ids, and how long each must live.
#pragma once

#include <array>
#include <atomic>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>

#include "base/error.h"
#include "cachefiles/engine.h"
#include "front/fuse/blob_journal.h"
#include "front/fuse/read_ahead.h"
#include "front/fuse/touches.h"

namespace hydrant::front {

struct Blob : std::enable_shared_from_this<Blob> {
  std::shared_ptr<cachefiles::Cookie> cookie;
  uint64_t size = 0;        // bytes of data
  uint64_t file_size = 0;   // what readers see: size rounded up to 4096
  uint64_t generation = 0;  // tells apart the successive owners of one node id
  ReadAhead read_ahead;
  std::unique_ptr<Touches> touches;  // null for one that a predecessor made: its beginning was not seen

 private:
  friend class BlobTable;
  bool named = true;     // these three belong to the table's lock
  uint64_t lookups = 0;  // references the kernel holds on the node
  uint64_t opens = 0;
};

// A blob lives while it has a name, or the kernel knows its node or has it open. So the pointer that `find` yields for
// a node id of a request stays valid until that request is answered: the kernel keeps the node until then.
// Thread-safe; `find` takes no lock.
class BlobTable {
 public:
  static constexpr uint64_t kRootNode = 1;
  static constexpr uint64_t kFirstNode = 2;
  static constexpr size_t kCapacity = 65536;

  struct Entry {
    uint64_t node = 0;
    Blob* blob = nullptr;
  };

  ~BlobTable();

  // From here on a successor can read in the journal what stands here. Before the first blob.
  void write_to(BlobJournal journal) { journal_.emplace(std::move(journal)); }
  // A blob of a predecessor, whose journal has it already. Its node is free.
  void adopt(const proto::HandedBlob& handed, std::shared_ptr<cachefiles::Cookie> cookie);
  const std::optional<BlobJournal>& journal() const { return journal_; }

  // kExists, kNoSpace, kInvalid (a bad name).
  Result<> add(const std::string& name, std::shared_ptr<cachefiles::Cookie> cookie, uint64_t size,
               const std::string& volume, const std::string& id);
  bool remove(const std::string& name);
  void clear();  // nobody asks any more: every blob goes, whatever the kernel still knows

  Blob* find(uint64_t node) const;  // null when there is none
  std::vector<Touch> touches(const std::string& name) const;

  Entry lookup(const std::string& name);  // counts a reference of the kernel; node 0 when there is none
  void forget(uint64_t node, uint64_t count);
  Blob* open(uint64_t node);
  void release(uint64_t node);

  // The first named file whose node id is at least `node`, for listings; false at the end.
  bool next(uint64_t node, Entry& entry, std::string& name) const;
  size_t count() const;

 private:
  static constexpr size_t kSegmentSize = 256;
  using Segment = std::array<std::atomic<Blob*>, kSegmentSize>;
  using Lock = std::lock_guard<std::mutex>;

  std::atomic<Blob*>* slot(uint64_t node) const;
  std::atomic<Blob*>& make_slot(const Lock&, uint64_t node);
  void drop_if_unused(const Lock&, uint64_t node);

  mutable std::mutex mutex_;
  std::map<std::string, uint64_t, std::less<>> names_;  // to node ids
  std::map<uint64_t, std::shared_ptr<Blob>> blobs_;     // by node id: the owner of what the slots point to
  uint64_t generation_ = 0;
  std::optional<BlobJournal> journal_;
  // Segments are made when first needed and never freed before the table. Stores release, loads acquire.
  std::array<std::atomic<Segment*>, kCapacity / kSegmentSize> segments_{};
};

}  // namespace hydrant::front
