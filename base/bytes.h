// Views over bytes and loads and stores of fixed byte order. Callers check bounds; `Cursor` does it for them.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace hydrant {

using Bytes = std::span<const std::byte>;
using MutableBytes = std::span<std::byte>;
using Buffer = std::vector<std::byte>;

static_assert(std::endian::native == std::endian::little, "formats are little endian and stored as they are");

inline Bytes as_bytes(std::string_view text) { return std::as_bytes(std::span(text.data(), text.size())); }
inline std::string_view as_text(Bytes bytes) { return {reinterpret_cast<const char*>(bytes.data()), bytes.size()}; }
inline Buffer to_buffer(Bytes bytes) { return {bytes.begin(), bytes.end()}; }

template <class T>
T load_le(const std::byte* at) {
  T value;
  std::memcpy(&value, at, sizeof value);
  return value;
}
template <class T>
void store_le(std::byte* at, T value) {
  std::memcpy(at, &value, sizeof value);
}
inline uint64_t load_be64(const std::byte* at) { return __builtin_bswap64(load_le<uint64_t>(at)); }
inline void store_be64(std::byte* at, uint64_t value) { store_le(at, __builtin_bswap64(value)); }
template <class T>
void append_le(Buffer& out, T value) {
  const auto* at = reinterpret_cast<const std::byte*>(&value);
  out.insert(out.end(), at, at + sizeof value);
}
inline void append(Buffer& out, Bytes bytes) { out.insert(out.end(), bytes.begin(), bytes.end()); }

// Reads forward through bytes from outside. After the first read past the end every further one yields zero and
// `ok()` is false, so a decoder checks once at the end.
class Cursor {
 public:
  explicit Cursor(Bytes bytes) : rest_(bytes) {}
  template <class T>
  T take() {
    if (rest_.size() < sizeof(T)) return miss(), T{};
    T value = load_le<T>(rest_.data());
    rest_ = rest_.subspan(sizeof(T));
    return value;
  }
  Bytes take_bytes(uint64_t size) {
    if (rest_.size() < size) return miss(), Bytes{};
    Bytes out = rest_.first(size);
    rest_ = rest_.subspan(size);
    return out;
  }
  // LEB128, at most 64 bits.
  uint64_t take_varint() {
    uint64_t value = 0;
    for (unsigned shift = 0; shift < 64; shift += 7) {
      auto byte = take<uint8_t>();
      value |= uint64_t(byte & 0x7f) << shift;
      if (!(byte & 0x80)) return value;
    }
    return miss(), 0;
  }
  Bytes rest() const { return rest_; }
  bool ok() const { return ok_; }

 private:
  void miss() {
    ok_ = false;
    rest_ = {};
  }
  Bytes rest_;
  bool ok_ = true;
};

inline void append_varint(Buffer& out, uint64_t value) {
  for (; value >= 0x80; value >>= 7) out.push_back(std::byte(value | 0x80));
  out.push_back(std::byte(value));
}

}  // namespace hydrant
