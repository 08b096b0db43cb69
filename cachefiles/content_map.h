// Which 4096-byte blocks of a backing file are present, and which of those a power cut cannot take back.
//
// A bit is set after its block's bytes are in the page cache of the backing file; `durable` is set after a map that
// says so is itself on disk, behind an fdatasync of the data. Readers take no lock. Nothing is allocated until a block
// is set: a file of the nominal size 2^43 costs as much as an empty one.
#pragma once

#include <array>
#include <atomic>
#include <memory>
#include <mutex>
#include <vector>

#include "base/byte_range.h"
#include "base/small_mutex.h"
#include "proto/content_map_file.h"

namespace hydrant::cachefiles {

// Thread-safe. Blocks are numbered from 0; a range of blocks is [begin, end).
class ContentMap {
 public:
  static constexpr uint64_t kBlocks = proto::kMapLeafLimit * proto::kMapLeafBlocks;

  ContentMap() = default;
  ~ContentMap();
  ContentMap(const ContentMap&) = delete;
  ContentMap& operator=(const ContentMap&) = delete;

  // The first block at or after `begin` that is present (absent), or `end`. Blocks past kBlocks are absent.
  uint64_t next_present(uint64_t begin, uint64_t end) const;
  uint64_t next_absent(uint64_t begin, uint64_t end) const;
  bool all_durable(uint64_t begin, uint64_t end) const;

  // `end` is at most kBlocks.
  void set_present(uint64_t begin, uint64_t end);
  // Forgets both bits of every block of [begin, end). How many were present.
  uint64_t clear(uint64_t begin, uint64_t end = kBlocks);
  // Forgets what is present and not durable: its data did not reach the disk.
  void forget_volatile();

  // Somebody read blocks of the range: they are not unused.
  void note_use(uint64_t begin, uint64_t end) const;
  // Ranges of present blocks, `most` at most, that nobody has used or set since this was asked before; in portions of
  // kPortion blocks. Everything else counts as unused from now on, until it is used again.
  std::vector<ByteRange> take_unused(uint64_t most);
  static constexpr uint64_t kPortion = 64;

  // The present bits now, and afterwards: these bits are durable, unless they were cleared meanwhile.
  std::vector<proto::ContentMapLeaf> snapshot() const;
  void mark_durable(const std::vector<proto::ContentMapLeaf>& leaves);

  uint64_t present_blocks() const { return present_blocks_.load(std::memory_order_relaxed); }
  uint64_t durable_blocks() const { return durable_blocks_.load(std::memory_order_relaxed); }

 private:
  struct Leaf {
    std::array<std::atomic<uint64_t>, proto::kMapLeafWords> present{};
    std::array<std::atomic<uint64_t>, proto::kMapLeafWords> durable{};
    mutable std::atomic<uint64_t> used{0};  // a bit a word: a second chance when room is made
  };
  static constexpr unsigned kFanout = 1024;
  struct Branch {
    std::array<std::atomic<Leaf*>, kFanout> leaves{};
  };
  struct Root {
    std::array<std::atomic<Branch*>, kFanout> branches{};
  };
  static_assert(uint64_t{kFanout} * kFanout == proto::kMapLeafLimit);

  const Leaf* find(uint64_t leaf) const;
  Leaf* obtain(uint64_t leaf);
  static_assert(proto::kMapLeafWords == 64 && kPortion == 64, "a leaf's words are counted in the bits of one");
  template <class Visit>
  void visit(Visit&& visit) const;  // visit(index, leaf) for each leaf there is, ascending
  uint64_t next(uint64_t begin, uint64_t end, bool wanted) const;

  // Pointers are published with release and read with acquire; they change once, from null, and die with the map.
  std::atomic<Leaf*> first_{nullptr};  // objects up to 16 MiB need no tree
  std::atomic<Root*> root_{nullptr};
  SmallMutex grow_;  // one grower at a time, and clearing against marking durable
  std::atomic<uint64_t> present_blocks_{0};
  std::atomic<uint64_t> durable_blocks_{0};
};

}  // namespace hydrant::cachefiles
