// A half-open range of bytes [begin, end). Offsets are 64-bit; arithmetic on ranges from outside is checked by
// `make_range`.
#pragma once

#include <algorithm>
#include <compare>
#include <cstdint>
#include <optional>

namespace hydrant {

struct ByteRange {
  uint64_t begin = 0;
  uint64_t end = 0;

  uint64_t size() const { return end - begin; }
  bool empty() const { return end <= begin; }
  bool contains(uint64_t offset) const { return offset >= begin && offset < end; }
  bool contains(const ByteRange& other) const { return other.begin >= begin && other.end <= end; }
  bool overlaps(const ByteRange& other) const { return begin < other.end && other.begin < end; }
  auto operator<=>(const ByteRange&) const = default;
};

// [offset, offset + size), or nothing when that overflows.
inline std::optional<ByteRange> make_range(uint64_t offset, uint64_t size) {
  uint64_t end = 0;
  if (__builtin_add_overflow(offset, size, &end)) return std::nullopt;
  return ByteRange{offset, end};
}

inline ByteRange intersect(const ByteRange& a, const ByteRange& b) {
  uint64_t begin = std::max(a.begin, b.begin);
  return {begin, std::max(begin, std::min(a.end, b.end))};
}

// `unit` must be a power of two.
constexpr uint64_t round_down(uint64_t value, uint64_t unit) { return value & ~(unit - 1); }
constexpr uint64_t round_up(uint64_t value, uint64_t unit) { return (value + unit - 1) & ~(unit - 1); }

// The smallest aligned range that covers `range`.
inline ByteRange align_outward(const ByteRange& range, uint64_t unit) {
  return {round_down(range.begin, unit), round_up(range.end, unit)};
}

}  // namespace hydrant
