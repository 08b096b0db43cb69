// What a hydrantd tells its successor about the blob file system that the kernel still has open
// (docs/formats/handover.md): which node is which object. It stands in memory that outlives the process and is changed
// in place, one slot a node, so that a death at any instruction leaves every slot either whole or free.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "base/error.h"

namespace hydrant::proto {

inline constexpr uint32_t kHandoverVersion = 1;
inline constexpr size_t kHandoverHeader = 4096;
inline constexpr size_t kHandoverSlot = 1024;
inline constexpr uint64_t kHandoverFirstNode = 2;  // of FUSE: 1 is the root
inline constexpr uint64_t kHandoverNodes = 65536;
inline constexpr size_t kHandoverSize = kHandoverHeader + kHandoverNodes * kHandoverSlot;  // sparse

// Where the fields stand that change while a slot is in use; each is stored at once. Offsets in a slot.
inline constexpr size_t kHandoverUsed = 0;      // 8 bytes: 1 in use, 0 free. Written last in, cleared first
inline constexpr size_t kHandoverLookups = 24;  // 8 bytes
inline constexpr size_t kHandoverOpens = 32;    // 8 bytes
inline constexpr size_t kHandoverNamed = 40;    // 4 bytes
// In the header, 8 bytes: no slot from this one on was ever used.
inline constexpr size_t kHandoverHighWater = 24;

struct HandedBlob {
  uint64_t node = 0;
  uint64_t generation = 0;
  uint64_t size = 0;     // bytes of data
  uint64_t lookups = 0;  // references of the kernel
  uint64_t opens = 0;
  bool named = true;        // false: only who has it open knows it still
  std::string name = {};    // of the file, 1..255 bytes
  std::string volume = {};  // of the cache, 1..255 bytes
  std::string id = {};      // cookie key, 1..255 bytes
  bool operator==(const HandedBlob&) const = default;
};

struct Handover {
  std::vector<HandedBlob> blobs = {};  // by node
  bool operator==(const Handover&) const = default;
};

// Offset of a node's slot. The node must be in range.
inline size_t handover_slot(uint64_t node) {
  return kHandoverHeader + static_cast<size_t>(node - kHandoverFirstNode) * kHandoverSlot;
}

// `out` holds the header; the rest of a new record is zeros.
void encode_handover_header(MutableBytes out, uint64_t high_water);
// Everything but the mark that the slot is in use.
void encode_handover_slot(MutableBytes out, const HandedBlob& blob);
// The whole record up to its last slot, as tests and tools want it.
Buffer encode_handover(const Handover& handover);
// kCorrupt for anything inconsistent, kUnsupported for a later version. Bytes past the last used slot may be missing.
Result<Handover> decode_handover(Bytes bytes);

}  // namespace hydrant::proto
