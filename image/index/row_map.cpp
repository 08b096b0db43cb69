#include "image/index/row_map.h"

#include <algorithm>

#include "base/check.h"

namespace hydrant::image {
namespace {

using Rows = std::vector<LayoutRow>;

// The first row that ends behind the device (or plain) offset.
Rows::const_iterator row_at_device(const Rows& rows, uint64_t offset) {
  return std::partition_point(rows.begin(), rows.end(),
                              [&](const LayoutRow& row) { return row.device_offset + row.length <= offset; });
}
Rows::const_iterator row_at_plain(const Rows& rows, uint64_t offset) {
  return std::partition_point(rows.begin(), rows.end(),
                              [&](const LayoutRow& row) { return row.tar_offset + row.length <= offset; });
}

}  // namespace

ByteRange plain_range(const Rows& rows, ByteRange device) {
  const auto first = row_at_device(rows, device.begin);
  auto last =
      std::partition_point(first, rows.end(), [&](const LayoutRow& row) { return row.device_offset < device.end; });
  HYDRANT_CHECK(first != last, "a granule without data: decode_rows refuses such rows");
  --last;
  return {first->tar_offset + (std::max(device.begin, first->device_offset) - first->device_offset),
          last->tar_offset + (std::min(device.end, last->device_offset + last->length) - last->device_offset)};
}

ByteRange completed_by(const Rows& rows, ByteRange plain, const LayerIdent& ident) {
  uint64_t begin = 0, end = ident.device_size;  // the first byte after data before `plain`, the first of data behind it
  if (auto row = row_at_plain(rows, plain.begin); row != rows.end() && row->tar_offset < plain.begin) {
    begin = row->device_offset + (plain.begin - row->tar_offset);
  } else if (row != rows.begin()) {
    begin = std::prev(row)->device_offset + std::prev(row)->length;
  }
  if (auto row = row_at_plain(rows, plain.end); row != rows.end())
    end = row->device_offset + (std::max(plain.end, row->tar_offset) - row->tar_offset);
  begin = std::min(round_up(begin, ident.granule), ident.device_size);
  return {begin, std::max(begin, end == ident.device_size ? end : round_down(end, ident.granule))};
}

RowWalk::RowWalk(const Rows& rows, ByteRange device, GranuleAssembler& out)
    : row_(row_at_device(rows, device.begin)), end_(rows.end()), device_(device), out_(out) {}

Result<> RowWalk::take(uint64_t plain_offset, Bytes bytes) {
  const ByteRange piece{plain_offset, plain_offset + bytes.size()};
  for (; row_ != end_ && row_->device_offset < device_.end; ++row_) {
    const uint64_t shift = row_->device_offset - row_->tar_offset;  // modulo 2^64
    const ByteRange wanted = intersect({row_->device_offset, row_->device_offset + row_->length}, device_);
    const ByteRange part = intersect({wanted.begin - shift, wanted.end - shift}, piece);
    if (!part.empty())
      HYDRANT_TRY_VOID(out_.put(part.begin + shift, bytes.subspan(part.begin - plain_offset, part.size())));
    if (wanted.end - shift > piece.end) break;
  }
  return {};
}

}  // namespace hydrant::image
