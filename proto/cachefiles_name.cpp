#include "proto/cachefiles_name.h"

#include <algorithm>
#include <bit>

namespace hydrant::proto {
namespace {

constexpr size_t kKeyLimit = 252;
constexpr size_t kNameLimit = 255;

// The key in 32-bit words, the last one padded with zeros.
std::vector<uint32_t> words_of(Bytes key) {
  std::vector<uint32_t> words((key.size() + 3) / 4);
  if (!key.empty()) std::memcpy(words.data(), key.data(), key.size());
  return words;
}

uint32_t hash_words(uint32_t salt, const std::vector<uint32_t>& words) {
  uint32_t x = 0, y = salt;
  for (uint32_t word : words) {
    x ^= word;
    y ^= x;
    x = std::rotl(x, 7);
    x += y;
    y = std::rotl(y, 20);
    y *= 9;
  }
  constexpr uint32_t kMultiplier = 0x61C88647;
  return (y ^ (x * kMultiplier)) * kMultiplier;
}

bool is_plain(std::byte byte) {
  auto value = std::to_integer<unsigned>(byte);
  return value >= 0x21 && value <= 0x7f && value != '/';
}

unsigned hex_digits(uint32_t word) { return (std::bit_width(word) + 3) / 4; }

std::string hex_name(char prefix, const std::vector<uint32_t>& words, bool big_endian) {
  static constexpr char kDigits[] = "0123456789abcdef";
  std::string name(1, prefix);
  for (size_t i = 0; i < words.size(); ++i) {
    if (i > 0) name += ',';
    uint32_t word = big_endian ? __builtin_bswap32(words[i]) : words[i];
    for (unsigned digit = hex_digits(word); digit-- > 0;) name += kDigits[word >> (4 * digit) & 0xf];
  }
  return name;
}

std::string base64_name(Bytes key) {
  static constexpr char kAlphabet[] = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_-";
  std::string name = "E";
  name += static_cast<char>('0' + (3 - key.size() % 3) % 3);
  for (size_t at = 0; at < key.size(); at += 3) {
    uint32_t triple = 0;
    for (size_t i = 0; i < 3 && at + i < key.size(); ++i) triple |= std::to_integer<uint32_t>(key[at + i]) << (8 * i);
    for (unsigned digit = 0; digit < 4; ++digit) name += kAlphabet[triple >> (6 * digit) & 0x3f];
  }
  return name;
}

}  // namespace

uint32_t hash_volume(std::string_view key) {
  Buffer padded;  // a length byte, the key, at least one zero
  padded.push_back(std::byte(key.size()));
  append(padded, as_bytes(key));
  padded.push_back(std::byte(0));
  return hash_words(0, words_of(padded));
}

uint32_t hash_cookie(uint32_t volume_hash, Bytes key) { return hash_words(volume_hash, words_of(key)); }

std::string volume_directory(std::string_view key) { return "I" + std::string(key); }

std::string fanout_directory(uint8_t index) {
  static constexpr char kDigits[] = "0123456789abcdef";
  return {'@', kDigits[index >> 4], kDigits[index & 0xf]};
}

std::optional<std::string> object_name(Bytes key) {
  if (key.empty() || key.size() > kKeyLimit) return std::nullopt;
  std::string name;
  if (std::all_of(key.begin(), key.end(), is_plain)) {
    name = "D" + std::string(as_text(key));
  } else {
    auto words = words_of(key);
    size_t big = 0, little = 0;
    for (uint32_t word : words) {
      big += 1 + hex_digits(__builtin_bswap32(word));
      little += 1 + hex_digits(word);
    }
    size_t base64 = 2 + 4 * ((key.size() + 2) / 3);
    if (big < base64 || little < base64)
      name = big <= little ? hex_name('S', words, true) : hex_name('T', words, false);
    else
      name = base64_name(key);
  }
  if (name.size() > kNameLimit) return std::nullopt;
  return name;
}

}  // namespace hydrant::proto
