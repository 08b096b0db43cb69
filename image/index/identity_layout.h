// A device that is the remote object itself, padded with zeros to a block: metadata images, big single files.
#pragma once

#include <optional>
#include <vector>

#include "base/digest.h"
#include "image/layout.h"

namespace hydrant::image {

class IdentityLayout final : public Layout {
 public:
  // `granule` is a power of two, 4 KiB .. 4 MiB. With `leaves` (proto/merkle.h: one a granule of the padded device)
  // every granule is proven; without them the caller proves the object by other means before anybody trusts it.
  IdentityLayout(uint64_t object_size, uint64_t granule, std::optional<std::vector<Digest>> leaves = std::nullopt);

  uint64_t device_size() const override;
  uint64_t granule() const override { return granule_; }
  Fill plan(ByteRange wanted) const override;
  std::unique_ptr<Decoder> decoder(const Fill& fill, DeviceSink sink) const override;
  Result<> prove(uint64_t offset, Bytes granules) const override;

 private:
  class Decoding;
  uint64_t object_size_;
  uint64_t granule_;
  std::optional<std::vector<Digest>> leaves_;
};

}  // namespace hydrant::image
