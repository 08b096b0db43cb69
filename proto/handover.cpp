#include "proto/handover.h"

#include <algorithm>

namespace hydrant::proto {

namespace {

constexpr char kMagic[8] = {'h', 'y', 'd', 'r', 'h', 'a', 'n', 'd'};
constexpr size_t kGeneration = 8, kSize = 16, kLengths = 44, kNames = 48, kNameSize = 256;

Result<std::string> text_at(Bytes slot, size_t index) {
  auto length = load_le<uint8_t>(slot.data() + kLengths + index);
  if (length == 0) return fail(Code::kCorrupt, "hand-over record: an empty name");
  std::string text(as_text(slot.subspan(kNames + index * kNameSize, length)));
  if (text.find('\0') != std::string::npos) return fail(Code::kCorrupt, "hand-over record: a zero byte in a name");
  return text;
}

}  // namespace

void encode_handover_header(MutableBytes out, uint64_t high_water) {
  std::memcpy(out.data(), kMagic, sizeof kMagic);
  store_le<uint32_t>(out.data() + 8, kHandoverVersion);
  store_le<uint32_t>(out.data() + 12, kHandoverSlot);
  store_le<uint64_t>(out.data() + 16, kHandoverNodes);
  store_le<uint64_t>(out.data() + kHandoverHighWater, high_water);
}

void encode_handover_slot(MutableBytes out, const HandedBlob& blob) {
  store_le<uint64_t>(out.data() + kGeneration, blob.generation);
  store_le<uint64_t>(out.data() + kSize, blob.size);
  store_le<uint64_t>(out.data() + kHandoverLookups, blob.lookups);
  store_le<uint64_t>(out.data() + kHandoverOpens, blob.opens);
  store_le<uint32_t>(out.data() + kHandoverNamed, blob.named);
  size_t index = 0;
  for (const std::string* text : {&blob.name, &blob.volume, &blob.id}) {
    size_t length = std::min<size_t>(text->size(), 255);
    store_le<uint8_t>(out.data() + kLengths + index, static_cast<uint8_t>(length));
    std::memcpy(out.data() + kNames + index * kNameSize, text->data(), length);
    ++index;
  }
  store_le<uint8_t>(out.data() + kLengths + 3, 0);
}

Buffer encode_handover(const Handover& handover) {
  uint64_t high = handover.blobs.empty() ? 0 : handover.blobs.back().node - kHandoverFirstNode + 1;
  Buffer out(kHandoverHeader + high * kHandoverSlot);
  encode_handover_header(MutableBytes(out).first(kHandoverHeader), high);
  for (const HandedBlob& blob : handover.blobs) {
    MutableBytes slot = MutableBytes(out).subspan(handover_slot(blob.node), kHandoverSlot);
    encode_handover_slot(slot, blob);
    store_le<uint64_t>(slot.data() + kHandoverUsed, 1);
  }
  return out;
}

Result<Handover> decode_handover(Bytes bytes) {
  if (bytes.size() < kHandoverHeader || std::memcmp(bytes.data(), kMagic, sizeof kMagic) != 0)
    return fail(Code::kCorrupt, "not a hand-over record");
  if (auto version = load_le<uint32_t>(bytes.data() + 8); version != kHandoverVersion)
    return fail(Code::kUnsupported, "hand-over record of version " + std::to_string(version));
  if (load_le<uint32_t>(bytes.data() + 12) != kHandoverSlot || load_le<uint64_t>(bytes.data() + 16) != kHandoverNodes)
    return fail(Code::kCorrupt, "hand-over record: slots of another size or number");
  auto high = load_le<uint64_t>(bytes.data() + kHandoverHighWater);
  if (high > kHandoverNodes || (bytes.size() - kHandoverHeader) / kHandoverSlot < high)
    return fail(Code::kCorrupt, "hand-over record: slots are missing");

  Handover handover;
  for (uint64_t at = 0; at < high; ++at) {
    Bytes slot = bytes.subspan(kHandoverHeader + at * kHandoverSlot, kHandoverSlot);
    auto used = load_le<uint64_t>(slot.data() + kHandoverUsed);
    if (used == 0) continue;
    if (used != 1) return fail(Code::kCorrupt, "hand-over record: a slot in no known state");
    auto named = load_le<uint32_t>(slot.data() + kHandoverNamed);
    HandedBlob blob{.node = at + kHandoverFirstNode,
                    .generation = load_le<uint64_t>(slot.data() + kGeneration),
                    .size = load_le<uint64_t>(slot.data() + kSize),
                    .lookups = load_le<uint64_t>(slot.data() + kHandoverLookups),
                    .opens = load_le<uint64_t>(slot.data() + kHandoverOpens),
                    .named = named == 1};
    if (named > 1 || blob.size > uint64_t(INT64_MAX) - 4096)
      return fail(Code::kCorrupt, "hand-over record: an impossible blob");
    HYDRANT_TRY(blob.name, text_at(slot, 0));
    HYDRANT_TRY(blob.volume, text_at(slot, 1));
    HYDRANT_TRY(blob.id, text_at(slot, 2));
    handover.blobs.push_back(std::move(blob));
  }
  return handover;
}

}  // namespace hydrant::proto
