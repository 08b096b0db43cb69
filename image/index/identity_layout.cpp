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
      : fill_(fill), granules_(fill.device.begin, layout.granule_, std::move(sink)) {}

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

  const Fill fill_;
  GranuleAssembler granules_;
  uint64_t fed_ = 0;
};

Result<> IdentityLayout::prove(uint64_t offset, Bytes granules) const {
  if (!leaves_) return {};
  if (auto wrong = proto::first_mismatch(*leaves_, granule_, offset, granules))
    return fail(Code::kCorrupt, "object bytes " + std::to_string(wrong->begin) + " do not match their digest");
  return {};
}

std::unique_ptr<Layout::Decoder> IdentityLayout::decoder(const Fill& fill, DeviceSink sink) const {
  return std::make_unique<Decoding>(*this, fill, std::move(sink));
}

}  // namespace hydrant::image
