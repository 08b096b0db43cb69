// Reads FlatBuffers (their "Internals" page) made by strangers: tables, strings and vectors, every offset checked.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

#include "base/bytes.h"

namespace hydrant::image {

// The bytes, and what may still be read of them: writers share a few strings; a buffer that points to its largest
// from everywhere would take for ever. Not thread-safe.
struct FlatBuffer {
  Bytes bytes;
  uint64_t budget = 4 * bytes.size();
  bool ok = true;  // false once something did not fit; all further reads yield nothing

  bool fits(uint64_t at, uint64_t size) { return ok = ok && at <= bytes.size() && size <= bytes.size() - at; }
  bool spend(uint64_t size) {
    ok = ok && size <= budget;
    if (ok) budget -= size;
    return ok;
  }
  template <class T>
  T load(uint64_t at) {
    return fits(at, sizeof(T)) ? load_le<T>(bytes.data() + at) : T{};
  }
  // What the offset at `at` points to; offsets count from where they stand and never back.
  uint64_t follow(uint64_t at) {
    const auto offset = load<uint32_t>(at);
    return ok && fits(at + offset, 4) ? at + offset : 0;
  }
};

// A vector; its elements begin at `begin`. Empty when the field is not there.
struct FlatVector {
  uint64_t begin = 0;
  uint32_t size = 0;
};

class FlatTable {
 public:
  FlatTable() = default;
  static FlatTable root(FlatBuffer& buffer) { return FlatTable(&buffer, buffer.follow(0)); }

  template <class T>
  T number(unsigned field, T otherwise = {}) const {
    const uint64_t at = place(field);
    return at ? buffer_->load<T>(at) : otherwise;
  }
  std::string_view text(unsigned field) const {
    const uint64_t at = place(field);
    return at ? text_at(buffer_->follow(at)) : std::string_view();
  }
  FlatTable table(unsigned field) const {
    const uint64_t at = place(field);
    return at ? FlatTable(buffer_, buffer_->follow(at)) : FlatTable();
  }
  FlatVector vector(unsigned field, unsigned element_size) const {
    const uint64_t at = place(field);
    if (!at) return {};
    const uint64_t begin = buffer_->follow(at);
    const auto size = buffer_->load<uint32_t>(begin);
    if (!buffer_->fits(begin + 4, uint64_t{size} * element_size) || !buffer_->spend(uint64_t{size} * element_size))
      return {};
    return {begin + 4, size};
  }
  // Elements of a vector of tables, strings or bytes.
  FlatTable table_of(const FlatVector& vector, uint32_t i) const {
    return FlatTable(buffer_, buffer_->follow(vector.begin + 4ULL * i));
  }
  std::string_view text_of(const FlatVector& vector, uint32_t i) const {
    return text_at(buffer_->follow(vector.begin + 4ULL * i));
  }
  Bytes bytes_of(const FlatVector& vector) const {
    return buffer_ && buffer_->ok ? buffer_->bytes.subspan(vector.begin, vector.size) : Bytes();
  }

 private:
  FlatTable(FlatBuffer* buffer, uint64_t at) : buffer_(buffer), at_(at) {
    if (!buffer_->fits(at, 4)) return;
    const int64_t fields = int64_t(at) - buffer_->load<int32_t>(at);
    if (fields < 0 || !buffer_->fits(uint64_t(fields), 4)) {
      buffer_->ok = false;
      return;
    }
    fields_ = uint64_t(fields);
    fields_size_ = buffer_->load<uint16_t>(fields_);
    buffer_->fits(fields_, fields_size_);
  }

  // Of the field in the buffer; 0 when the table does not have it.
  uint64_t place(unsigned field) const {
    const unsigned slot = 4 + 2 * field;
    if (!buffer_ || !buffer_->ok || slot + 2 > fields_size_) return 0;
    const auto offset = buffer_->load<uint16_t>(fields_ + slot);
    return offset ? at_ + offset : 0;
  }
  std::string_view text_at(uint64_t at) const {
    const auto size = buffer_->load<uint32_t>(at);
    if (!buffer_->fits(at + 4, size) || !buffer_->spend(size)) return {};
    return as_text(buffer_->bytes.subspan(at + 4, size));
  }

  FlatBuffer* buffer_ = nullptr;  // outlives the table; none: a table without fields
  uint64_t at_ = 0, fields_ = 0;
  unsigned fields_size_ = 0;
};

}  // namespace hydrant::image
