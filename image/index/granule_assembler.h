// Turns file data into whole stretches of a device: gaps become zeros, stretches come out complete and in order.
#pragma once

#include <functional>

#include "base/byte_range.h"
#include "base/bytes.h"
#include "base/error.h"

namespace hydrant::image {

// Not thread-safe.
class GranuleAssembler {
 public:
  using Emit = std::function<Result<>(uint64_t device_offset, Bytes bytes)>;

  // Stretches are `unit` bytes (the last may be short) and start at `begin`, a multiple of 4096.
  GranuleAssembler(uint64_t begin, uint64_t unit, Emit emit);

  // Bytes at `offset`, which never lies before what was put already.
  Result<> put(uint64_t offset, Bytes bytes);
  // The device, or the part wanted of it, ends at `end`.
  Result<> finish(uint64_t end);

 private:
  Result<> fill(uint64_t size, const std::byte* from);
  Result<> emit();

  uint64_t at_;  // of the stretch being filled
  const uint64_t unit_;
  const Emit emit_;
  Buffer stretch_;
};

}  // namespace hydrant::image
