// One backing file: its descriptor, its content map, and the order in which bytes, bits and the map reach the disk.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <mutex>
#include <span>

#include "base/byte_range.h"
#include "base/small_mutex.h"
#include "cachefiles/content_map.h"
#include "cachefiles/descriptor.h"
#include "cachefiles/disk.h"
#include "cachefiles/engine.h"
#include "cachefiles/verifier.h"

namespace hydrant::cachefiles {

inline constexpr uint64_t kBlockSize = proto::kMapBlockSize;

// Thread-safe. Held by its object, by whoever writes to it at the moment, and by the list of maps to save.
class BackingFile {
 public:
  BackingFile(Descriptors& pool, Fd fd, InodeId id, Presence presence, uint64_t block_size)
      : descriptor_(pool, std::move(fd), id), presence_(presence), block_size_(block_size) {}
  ~BackingFile() { delete proof_.load(); }

  // What goes wrong when it is opened again, its user reports like an error of his own call.
  Descriptor::Use open() const { return descriptor_.use(); }
  Descriptor& descriptor() { return descriptor_; }
  InodeId id() const { return descriptor_.id(); }
  Presence presence() const { return presence_; }
  const ContentMap& map() const { return map_; }

  struct Survey {
    enum class Kind { kPresent, kHole, kError } kind;
    uint64_t size;       // bytes from the window's begin that are so; never 0
    const char* reason;  // for the trace, in the kernel's words
  };
  // Rows 5 to 11 of spec 7.5 for an on-demand reader: `window` is block aligned and not empty.
  Survey survey(ByteRange window) const;
  bool present(ByteRange range) const;
  // Every block of [0, size) is present and durable.
  bool complete(uint64_t size) const;

  // Writes the bytes and pads the last block with zeros, then sets the bits of the blocks that were written whole.
  // Byte count of `bytes` written or -errno. `offset` is block aligned. -ENOBUFS: a sync failed meanwhile and may have
  // lost the bytes; nothing is present that was not before, and the caller writes again.
  int64_t write(Disk& disk, Bytes bytes, uint64_t offset) { return write(disk, {&bytes, 1}, offset); }
  // The same for bytes that lie apart: at most 64 pieces.
  int64_t write(Disk& disk, std::span<const Bytes> pieces, uint64_t offset);

  // proven.cpp: a write by the user daemon's handle. With a proof, granules become present that match their leaves, and
  // no others: -EIO at the first that does not, after what stands before it. A file that somebody reads past us keeps
  // what is present. In both, writing what is present again succeeds and changes nothing.
  int64_t fill(Disk& disk, const Proving& proving, std::span<const Bytes> pieces, uint64_t offset);
  // Requires `proof` from now on, for which it takes the leaves from `source`. What was present must prove itself
  // first. Of a shared file, which others write to meanwhile, the proof stays what it is: -EEXIST. Callers serialise.
  // 0; -ENODATA: no such leaves; -EOPNOTSUPP, -EIO.
  enum class Use { kAlone, kShared };
  int prove(const std::string& maps_directory, const proto::MerkleProof& proof, const LeafSource& source, Use use);
  // Null: none is required.
  const proto::MerkleProof* proof() const { return proof_.load(std::memory_order_acquire); }
  // Once true it stays so.
  bool proves_writes() const { return guarded_.load() && proof() != nullptr; }
  // Makes granules of `window` present that are on the disk, unproven, and match their leaves. Whether the window's
  // first block is present now.
  bool find(const Proving& proving, ByteRange window);
  struct Scrubbed {
    uint64_t next = 0;   // where to go on; UINT64_MAX: that was the last
    uint64_t bytes = 0;  // that were hashed
    std::vector<ByteRange> damaged = {};
  };
  // Hashes what is present, from the granule at `from` on, about `most` bytes; what does not match is present no
  // longer.
  Scrubbed scrub(const Proving& proving, uint64_t from, uint64_t most);

  // Gives the blocks of an aligned range back. 0 or -errno.
  int punch(ByteRange range);

  // For the rest of this boot nothing of it is discarded, whoever opens it. 0 or -errno.
  int mark_read_directly();
  // Gives back what nobody has read for a while (ContentMap::take_unused), about `bytes` of it, while others read and
  // write. Bytes given back. A read is of one piece with the discards if discards() is the same before and after it,
  // and what it reads was present in between.
  uint64_t discard(uint64_t bytes);
  uint64_t discards() const { return discards_.load(); }

  // Cuts to `size`, zeroes the rest of the last block. 0 or -errno.
  int shrink(uint64_t size);

  // Gives a new file its identity. 0 or -errno.
  int make_identity();
  struct Trust {
    bool clean = true;   // the engine before us ended in order; else the leaves are looked at, too
    bool proofs = true;  // leaves that lie beside the map are required
  };
  // Believes the stored map if it is this file's (docs/formats/content-map.md); otherwise nothing is present. Of a file
  // that has leaves, what was on the disk at an unclean end must prove itself.
  void load_map(const std::string& maps_directory, uint64_t object_size, Trust trust);
  // Makes what is present durable: data, then the map. Does nothing for a clean file. 0, or -errno and the file stays
  // unsaved. `object_size` is asked once saving may be claimed again: whoever changes the size after that can queue the
  // file anew.
  int save_map(Disk& disk, const std::string& maps_directory, const std::function<uint64_t()>& object_size);
  void delete_map(const std::string& maps_directory) const;

  // True once after a write: the caller then puts the file on the list of maps to save.
  bool claim_saving() { return !saving_.exchange(true); }
  // Set after bits, cleared before the snapshot that covers them.
  void touch() { descriptor_.set_dirty(); }
  bool has_unsaved() const { return descriptor_.dirty(); }

 private:
  Survey survey_sparse(ByteRange window) const;
  int failed(const char* operation, int err) const;  // says so in the trace, yields err
  std::string map_path(const std::string& maps_directory) const;
  void load_proof(const std::string& maps_directory, uint64_t object_size, Trust trust);
  void guard();
  static bool is_read_directly(int fd);
  LeafFile leaves(const proto::MerkleProof& proof, const std::string& maps_directory) const;
  int64_t fill_once(Disk& disk, std::span<const Bytes> pieces, uint64_t offset);
  int64_t fill_proven(Disk& disk, const Proving& proving, const proto::MerkleProof& proof,
                      std::span<const Bytes> pieces, uint64_t offset);
  // The blocks that `choose` picks, while no bit changes, are present no longer; where the kernel does not read the
  // file by itself the disk gives them back. Yields their bytes. Writers that have begun notice (discards_).
  uint64_t forget(int fd, const std::function<std::vector<ByteRange>()>& choose);
  bool read_whole(int fd, ByteRange granule, MutableBytes out) const;
  void drop_bits_over_holes(uint64_t file_size);

  mutable Descriptor descriptor_;
  Presence presence_;
  uint64_t block_size_;  // of the backing file system
  ContentMap map_;
  proto::FileIdentity identity_{};
  bool has_identity_ = false;
  std::atomic<bool> saving_{false};  // on the list
  SmallMutex save_;                  // one save at a time; held across the disk
  SmallMutex bits_;                  // setting bits against forgetting them after a failed sync
  // Failed syncs. Raised under bits_ together with forgetting. A writer loads it (acquire, pairs with the release of
  // the raise) before its bytes: the value seen says that those syncs are over and cannot lose them. It compares under
  // bits_ before it sets bits: no bit of bytes from before a failure is ever seen, not even by the next save.
  std::atomic<uint64_t> failures_{0};
  std::atomic<uint64_t> discards_{0};    // raised under bits_, before the bits are cleared
  std::atomic<bool> discarding_{false};  // holes are being made, under save_: no write may begin
  uint64_t generation_ = 0;
  std::atomic<const proto::MerkleProof*> proof_{nullptr};  // owned
  std::atomic<bool> guarded_{false};                       // writes go through proof_, or leave alone what is present
  std::atomic<bool> unproven_{false};                      // the disk may have granules that no bit vouches for
  std::atomic<int> unguarded_{0};                          // writers that do not know of guarded_
  SmallMutex once_;                                        // one guarded writer at a time where there is no proof
};

inline constexpr char kLeavesSuffix[] = ".leaves";
inline constexpr char kUnprovenSuffix[] = ".unproven";

// After an unclean end: no map of a file that has leaves is believed any more (docs/formats/content-map.md). 0 or
// -errno.
int doubt_maps(const std::string& maps_directory);

// The map, and the leaves, of a file that is about to be removed by somebody who has no BackingFile of it.
void delete_map_of(int fd, const std::string& maps_directory);

}  // namespace hydrant::cachefiles
