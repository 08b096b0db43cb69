#include "image/index/identity_layout.h"

#include <algorithm>

#include "base/check.h"
#include "image/index/granule_assembler.h"
#include "proto/merkle.h"

namespace hydrant::image {

IdentityLayout::IdentityLayout(uint64_t object_size, uint64_t granule, std::optional<std::vector<Digest>> leaves)
    : object_size_(object_size), granule_(granule), leaves_(std::move(leaves)) {
  HYDRANT_CHECK(!leaves_ || leaves_->size() == (device_size() + granule_ - 1) / granule_, "one leaf a granule");
}

uint64_t IdentityLayout::device_size() const { return round_up(object_size_, 4096); }

Fill IdentityLayout::plan(ByteRange wanted) const {
  check_wanted(wanted);
  Fill fill;
  fill.device = whole_granules(wanted);
  fill.stored = {fill.device.begin, std::min(fill.device.end, object_size_)};
  return fill;
}

class IdentityLayout::Decoding final : public Layout::Decoder {
 public:
  Decoding(const IdentityLayout& layout, const Fill& fill, DeviceSink sink)
      : layout_(layout),
        fill_(fill),
        sink_(std::move(sink)),
        granules_(fill.device.begin, layout.granule_,
                  [this](uint64_t offset, Bytes bytes) { return prove(offset, bytes); }) {}

  Result<> feed(Bytes stored) override {
    if (stored.size() > fill_.stored.size() - fed_)
      return fail(Code::kCorrupt, where() + ": more bytes than asked for");
    const uint64_t at = fill_.stored.begin + fed_;
    fed_ += stored.size();
    return stored.empty() ? Result<>() : granules_.put(at, stored);
  }

  Result<> finish() override {
    if (fed_ != fill_.stored.size())
      return fail(Code::kCorrupt, where() + ": got " + std::to_string(fed_) + " bytes instead of " +
                                      std::to_string(fill_.stored.size()));
    return granules_.finish(fill_.device.end);
  }

 private:
  std::string where() const { return "object bytes " + std::to_string(fill_.stored.begin); }

  Result<> prove(uint64_t offset, Bytes bytes) {
    if (layout_.leaves_ && proto::leaf_digest(bytes) != (*layout_.leaves_)[offset / layout_.granule_])
      return fail(Code::kCorrupt, "object bytes " + std::to_string(offset) + " do not match their digest");
    return sink_(offset, bytes);
  }

  const IdentityLayout& layout_;
  const Fill fill_;
  const DeviceSink sink_;
  GranuleAssembler granules_;
  uint64_t fed_ = 0;
};

std::unique_ptr<Layout::Decoder> IdentityLayout::decoder(const Fill& fill, DeviceSink sink) const {
  return std::make_unique<Decoding>(*this, fill, std::move(sink));
}

}  // namespace hydrant::image
