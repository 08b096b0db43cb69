// Labels: the extended attribute that ties a backing file to what its consumer meant by it (spec 7.3).
#pragma once

#include <cstdint>

#include "base/bytes.h"
#include "base/error.h"

namespace hydrant::proto {

inline constexpr char kLabelName[] = "user.CacheFiles.cache";
inline constexpr size_t kObjectLabelSize = 18;  // without aux data
inline constexpr size_t kVolumeLabelSize = 4;   // without coherency data
inline constexpr size_t kAuxLimit = 255;

// Content codes that are ever written; the others of the format are never used.
enum class Content : uint8_t { kNoData = 0, kDirty = 4 };

struct ObjectLabel {
  uint64_t object_size = 0;  // bytes
  uint8_t type = 1;          // 1: data
  uint8_t content = 0;
  Buffer aux;
};

Buffer encode_object_label(uint64_t object_size, Content content, Bytes aux);
// kCorrupt when shorter than the fixed part.
Result<ObjectLabel> decode_object_label(Bytes label);

// Four reserved zero bytes and the coherency data.
Buffer encode_volume_label(Bytes coherency);

// What a stored label says about what its consumer expects. The first difference in this order wins.
enum class Coherency { kOk, kLength, kType, kAux, kSize, kDirty, kReserved };
const char* to_string(Coherency verdict);

Coherency check_object_label(Bytes label, uint64_t object_size, Bytes aux);
Coherency check_volume_label(Bytes label, Bytes coherency);

}  // namespace hydrant::proto
