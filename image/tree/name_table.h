// Finds a directory's child by name: the hash table behind the merge.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

namespace hydrant::image {

// Maps (parent, name) to a node. Nodes are numbered from 1 in the order they are added; 0 is the root. Keeps views of
// the names. The hash is keyed with a random number, so an archive cannot choose names that collide.
class NameTable {
 public:
  static constexpr uint32_t kMissing = UINT32_MAX;

  // Room for so many names; there may be more.
  explicit NameTable(size_t expected);

  uint32_t find(uint32_t parent, std::string_view name) const;
  // The node, which has the next number if it is new.
  uint32_t find_or_add(uint32_t parent, std::string_view name);
  std::string_view name(uint32_t node) const { return keys_[node].name; }

 private:
  struct Key {
    std::string_view name;
    uint32_t parent = kMissing;
    uint32_t hash = 0;
  };

  uint32_t hash(uint32_t parent, std::string_view name) const;
  // Where it is, or the free slot where it would be.
  size_t slot_of(uint32_t hash, uint32_t parent, std::string_view name) const;
  void grow();

  uint64_t secret_;
  std::vector<Key> keys_;        // by node
  std::vector<uint32_t> slots_;  // node or kMissing; linear probing, at most half full
};

}  // namespace hydrant::image
