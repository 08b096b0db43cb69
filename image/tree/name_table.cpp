#include "image/tree/name_table.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <random>

namespace hydrant::image {
namespace {

constexpr uint64_t kPrime = (uint64_t{1} << 61) - 1;

// a * b + c modulo kPrime, for a, b < kPrime and c < 2^60.
uint64_t multiply_add(uint64_t a, uint64_t b, uint64_t c) {
  __extension__ using Wide = unsigned __int128;
  Wide product = Wide(a) * b + c;
  uint64_t sum = static_cast<uint64_t>(product & kPrime) + static_cast<uint64_t>(product >> 61);
  return sum >= kPrime ? sum - kPrime : sum;
}

}  // namespace

NameTable::NameTable(size_t expected)
    : keys_(1), slots_(std::bit_ceil(std::max<size_t>(2 * expected + 2, 1024)), kMissing) {
  keys_.reserve(expected + 1);
  std::random_device random;
  secret_ = ((uint64_t{random()} << 32 | random()) & (kPrime - 1)) | 1;
}

// A polynomial in the secret over 7-byte words: two names collide for a fraction of length / 2^61 of the secrets.
uint32_t NameTable::hash(uint32_t parent, std::string_view name) const {
  uint64_t sum = multiply_add(secret_, 1, uint64_t{parent} << 8 | name.size());
  while (!name.empty()) {
    size_t size = name.size() < 7 ? name.size() : 7;
    uint64_t word = 0;
    std::memcpy(&word, name.data(), size);
    sum = multiply_add(sum, secret_, word);
    name.remove_prefix(size);
  }
  sum = multiply_add(sum, secret_, 1);
  return static_cast<uint32_t>(sum ^ sum >> 29);
}

size_t NameTable::slot_of(uint32_t hash, uint32_t parent, std::string_view name) const {
  const size_t mask = slots_.size() - 1;
  for (size_t at = hash & mask;; at = (at + 1) & mask) {
    if (slots_[at] == kMissing) return at;
    const Key& key = keys_[slots_[at]];
    if (key.hash == hash && key.parent == parent && key.name == name) return at;
  }
}

uint32_t NameTable::find(uint32_t parent, std::string_view name) const {
  return slots_[slot_of(hash(parent, name), parent, name)];
}

uint32_t NameTable::find_or_add(uint32_t parent, std::string_view name) {
  if (keys_.size() * 2 >= slots_.size()) grow();
  const uint32_t hash = this->hash(parent, name);
  uint32_t& slot = slots_[slot_of(hash, parent, name)];
  if (slot == kMissing) {
    slot = static_cast<uint32_t>(keys_.size());
    keys_.push_back({name, parent, hash});
  }
  return slot;
}

void NameTable::grow() {
  slots_.assign(slots_.size() * 2, kMissing);
  const size_t mask = slots_.size() - 1;
  for (uint32_t node = 1; node < keys_.size(); ++node) {
    size_t at = keys_[node].hash & mask;
    while (slots_[at] != kMissing) at = (at + 1) & mask;
    slots_[at] = node;
  }
}

}  // namespace hydrant::image
