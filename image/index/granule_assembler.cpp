#include "image/index/granule_assembler.h"

#include <algorithm>

#include "base/check.h"

namespace hydrant::image {

GranuleAssembler::GranuleAssembler(uint64_t begin, uint64_t unit, Emit emit)
    : at_(begin), unit_(unit), emit_(std::move(emit)) {
  stretch_.reserve(unit);
}

Result<> GranuleAssembler::put(uint64_t offset, Bytes bytes) {
  HYDRANT_CHECK(offset >= at_ + stretch_.size(), "device bytes out of order: rows ascend in both offsets");
  HYDRANT_TRY_VOID(fill(offset - at_ - stretch_.size(), nullptr));
  return fill(bytes.size(), bytes.data());
}

Result<> GranuleAssembler::finish(uint64_t end) {
  HYDRANT_CHECK(end >= at_ + stretch_.size(), "device bytes past its end");
  HYDRANT_TRY_VOID(fill(end - at_ - stretch_.size(), nullptr));
  return stretch_.empty() ? Result<>() : emit();
}

// Zeros where `from` is null.
Result<> GranuleAssembler::fill(uint64_t size, const std::byte* from) {
  while (size > 0) {
    if (from && stretch_.empty() && size >= unit_) {  // whole where it stands: no copy
      HYDRANT_TRY_VOID(emit_(at_, Bytes(from, unit_)));
      at_ += unit_;
      from += unit_;
      size -= unit_;
      continue;
    }
    const uint64_t step = std::min<uint64_t>(size, unit_ - stretch_.size());
    if (from) {
      stretch_.insert(stretch_.end(), from, from + step);
      from += step;
    } else {
      stretch_.resize(stretch_.size() + step);
    }
    size -= step;
    if (stretch_.size() == unit_) HYDRANT_TRY_VOID(emit());
  }
  return {};
}

Result<> GranuleAssembler::emit() {
  auto done = emit_(at_, stretch_);
  at_ += stretch_.size();
  stretch_.clear();
  return done;
}

}  // namespace hydrant::image
