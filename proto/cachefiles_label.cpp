#include "proto/cachefiles_label.h"

#include <algorithm>

namespace hydrant::proto {
namespace {

constexpr size_t kZeroPointAt = 8;
constexpr size_t kTypeAt = 16;
constexpr size_t kContentAt = 17;
constexpr uint8_t kDataType = 1;

bool same(Bytes a, Bytes b) { return std::equal(a.begin(), a.end(), b.begin(), b.end()); }

}  // namespace

Buffer encode_object_label(uint64_t object_size, Content content, Bytes aux) {
  Buffer out(kObjectLabelSize);
  store_be64(out.data(), object_size);
  store_be64(out.data() + kZeroPointAt, 0);
  out[kTypeAt] = std::byte(kDataType);
  out[kContentAt] = std::byte(content);
  append(out, aux);
  return out;
}

Result<ObjectLabel> decode_object_label(Bytes label) {
  if (label.size() < kObjectLabelSize) return fail(Code::kCorrupt, "object label: shorter than 18 bytes");
  return ObjectLabel{.object_size = load_be64(label.data()),
                     .type = std::to_integer<uint8_t>(label[kTypeAt]),
                     .content = std::to_integer<uint8_t>(label[kContentAt]),
                     .aux = to_buffer(label.subspan(kObjectLabelSize))};
}

Buffer encode_volume_label(Bytes coherency) {
  Buffer out(kVolumeLabelSize);
  append(out, coherency);
  return out;
}

const char* to_string(Coherency verdict) {
  switch (verdict) {
    case Coherency::kOk: return "ok";
    case Coherency::kLength: return "length";
    case Coherency::kType: return "type";
    case Coherency::kAux: return "aux";
    case Coherency::kSize: return "size";
    case Coherency::kDirty: return "dirty";
    case Coherency::kReserved: break;
  }
  return "reserved";
}

Coherency check_object_label(Bytes label, uint64_t object_size, Bytes aux) {
  if (label.size() != kObjectLabelSize + aux.size()) return Coherency::kLength;
  if (label[kTypeAt] != std::byte(kDataType)) return Coherency::kType;
  if (!same(label.subspan(kObjectLabelSize), aux)) return Coherency::kAux;
  if (load_be64(label.data()) != object_size) return Coherency::kSize;
  if (label[kContentAt] == std::byte(Content::kDirty)) return Coherency::kDirty;
  return Coherency::kOk;
}

Coherency check_volume_label(Bytes label, Bytes coherency) {
  if (label.size() != kVolumeLabelSize + coherency.size()) return Coherency::kLength;
  if (load_le<uint32_t>(label.data()) != 0) return Coherency::kReserved;
  return same(label.subspan(kVolumeLabelSize), coherency) ? Coherency::kOk : Coherency::kAux;
}

}  // namespace hydrant::proto
