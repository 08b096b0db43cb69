#include "image/index/identity_layout.h"

#include <algorithm>

#include "base/check.h"
#include "image/index/merkle.h"

namespace hydrant::image {

IdentityLayout::IdentityLayout(uint64_t object_size, uint64_t granule, std::optional<std::vector<Digest>> leaves)
    : object_size_(object_size), granule_(granule), leaves_(std::move(leaves)) {
  HYDRANT_CHECK(!leaves_ || leaves_->size() == (device_size() + granule_ - 1) / granule_, "one leaf a granule");
}

uint64_t IdentityLayout::device_size() const { return round_up(object_size_, 4096); }

Fill IdentityLayout::plan(ByteRange wanted) const {
  HYDRANT_CHECK(!wanted.empty() && wanted.end <= device_size(), "plan() for a range outside the device");
  Fill fill;
  fill.device = align_outward(wanted, granule_);
  fill.device.end = std::min(fill.device.end, device_size());
  fill.stored = {fill.device.begin, std::min(fill.device.end, object_size_)};
  return fill;
}

Result<> IdentityLayout::decode(const Fill& fill, Bytes stored, const DeviceSink& sink) const {
  if (stored.size() != fill.stored.size())
    return fail(Code::kCorrupt, "object bytes " + std::to_string(fill.stored.begin) + ": got " +
                                    std::to_string(stored.size()) + " bytes instead of " +
                                    std::to_string(fill.stored.size()));
  Buffer padded;
  for (uint64_t at = fill.device.begin; at < fill.device.end; at += granule_) {
    const ByteRange granule{at, std::min(at + granule_, fill.device.end)};
    Bytes bytes = stored.subspan(at - fill.device.begin, intersect(granule, fill.stored).size());
    if (bytes.size() < granule.size()) {
      padded = to_buffer(bytes);
      padded.resize(granule.size());
      bytes = padded;
    }
    if (leaves_ && leaf_digest(bytes) != (*leaves_)[at / granule_])
      return fail(Code::kCorrupt, "object bytes " + std::to_string(at) + " do not match their digest");
    HYDRANT_TRY_VOID(sink(at, bytes));
  }
  return {};
}

}  // namespace hydrant::image
