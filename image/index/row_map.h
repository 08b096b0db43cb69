// Between a device and the plain stream that its data comes out of: the tar, or the chunks of a table of contents one
// behind the other.
#pragma once

#include <vector>

#include "base/byte_range.h"
#include "base/bytes.h"
#include "image/index/granule_assembler.h"
#include "image/index/layer_index.h"

namespace hydrant::image {

// From the first to the last byte of the plain stream that `device` holds, which must be some: every granule of an
// index holds data, because decode_rows refuses rows that leave two blocks, or the last one, without.
ByteRange plain_range(const std::vector<LayoutRow>& rows, ByteRange device);

// The granules all of whose data stands in `plain`, of a device of `ident`'s size and granule; where there are none, an
// empty range at the place where they would be.
ByteRange completed_by(const std::vector<LayoutRow>& rows, ByteRange plain, const LayerIdent& ident);

// Takes a stretch of the plain stream in order and puts its file data where the rows say, inside `device` only.
class RowWalk {
 public:
  // Both outlive the walk.
  RowWalk(const std::vector<LayoutRow>& rows, ByteRange device, GranuleAssembler& out);

  Result<> take(uint64_t plain_offset, Bytes bytes);

 private:
  std::vector<LayoutRow>::const_iterator row_;
  const std::vector<LayoutRow>::const_iterator end_;
  const ByteRange device_;
  GranuleAssembler& out_;
};

}  // namespace hydrant::image
