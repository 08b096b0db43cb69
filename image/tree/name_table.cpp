#include "image/tree/name_table.h"

#include <cstring>
#include <random>

#include "base/check.h"

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

NameTable::NameTable() : keys_(1), slots_(1024, kMissing) {
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

uint32_t NameTable::find(uint32_t parent, std::string_view name) const {
  uint32_t wanted = hash(parent, name);
  size_t mask = slots_.size() - 1;
  for (size_t at = wanted & mask; slots_[at] != kMissing; at = (at + 1) & mask) {
    const Key& key = keys_[slots_[at]];
    if (key.hash == wanted && key.parent == parent && key.name == name) return slots_[at];
  }
  return kMissing;
}

void NameTable::add(uint32_t parent, std::string_view name, uint32_t node) {
  HYDRANT_CHECK(node == keys_.size(), "nodes are added in the order of their numbers");
  if (keys_.size() * 2 >= slots_.size()) grow();
  keys_.push_back({name, parent, hash(parent, name)});
  size_t mask = slots_.size() - 1;
  size_t at = keys_.back().hash & mask;
  while (slots_[at] != kMissing) at = (at + 1) & mask;
  slots_[at] = node;
}

void NameTable::grow() {
  slots_.assign(slots_.size() * 2, kMissing);
  size_t mask = slots_.size() - 1;
  for (uint32_t node = 1; node < keys_.size(); ++node) {
    size_t at = keys_[node].hash & mask;
    while (slots_[at] != kMissing) at = (at + 1) & mask;
    slots_[at] = node;
  }
}

}  // namespace hydrant::image
