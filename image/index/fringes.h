// What decoders have left over at the borders of what they decoded: halves of granules, kept until the other half
// comes.
#pragma once

#include <cstdint>
#include <list>
#include <map>
#include <memory>
#include <mutex>

#include "base/byte_range.h"
#include "base/bytes.h"

namespace hydrant::image {

// Spans end in the middle of granules. The plain bytes of one such granule that lie on one side of the border of two
// spans. Nobody has proven them: they are as good as the granule that they become a part of, which is.
struct Fringe {
  uint64_t plain_offset = 0;
  Buffer bytes;
  ByteRange plain() const { return {plain_offset, plain_offset + bytes.size()}; }
};

// The fringes of all layouts of a process, the latest of them, within a budget. Thread-safe.
class Fringes {
 public:
  enum class Side { kHead, kTail };  // of the granule
  // `layout` tells layouts apart that live at the same time.
  struct Key {
    const void* layout = nullptr;
    uint64_t granule = 0;
    Side side = Side::kHead;
    auto operator<=>(const Key&) const = default;
  };

  // `budget` in bytes. More than a quarter of it is not kept in one piece.
  explicit Fringes(uint64_t budget) : budget_(budget) {}

  void keep(const Key& key, Fringe fringe);
  // Null when there is none (any more).
  std::shared_ptr<const Fringe> find(const Key& key) const;
  void forget(const Key& key);
  void forget_layout(const void* layout);

  uint64_t bytes() const;

 private:
  struct Entry {
    std::shared_ptr<const Fringe> fringe;
    std::list<Key>::iterator age;
  };
  using Entries = std::map<Key, Entry>;
  using Lock = std::lock_guard<std::mutex>;
  void drop(const Lock& lock, Entries::iterator entry);

  const uint64_t budget_;
  mutable std::mutex mutex_;
  Entries entries_;
  std::list<Key> ages_;  // the oldest first
  uint64_t bytes_ = 0;
};

}  // namespace hydrant::image
