#include "image/index/layer_layout.h"

#include <algorithm>

#include "base/check.h"
#include "image/gzip/span_decoder.h"
#include "image/index/granule_assembler.h"
#include "image/index/merkle.h"

namespace hydrant::image {
namespace {

using Rows = std::vector<LayoutRow>;

// The first row that ends behind the device (or tar) offset.
Rows::const_iterator row_at_device(const Rows& rows, uint64_t offset) {
  return std::partition_point(rows.begin(), rows.end(),
                              [&](const LayoutRow& row) { return row.device_offset + row.length <= offset; });
}
Rows::const_iterator row_at_tar(const Rows& rows, uint64_t offset) {
  return std::partition_point(rows.begin(), rows.end(),
                              [&](const LayoutRow& row) { return row.tar_offset + row.length <= offset; });
}

// Takes a stretch of the tar in order and puts its file data where the rows say, inside `device` only.
class RowWalk {
 public:
  RowWalk(const Rows& rows, ByteRange device, GranuleAssembler& out)
      : row_(row_at_device(rows, device.begin)), end_(rows.end()), device_(device), out_(out) {}

  Result<> take(uint64_t tar_offset, Bytes bytes) {
    const ByteRange piece{tar_offset, tar_offset + bytes.size()};
    for (; row_ != end_ && row_->device_offset < device_.end; ++row_) {
      const uint64_t shift = row_->device_offset - row_->tar_offset;  // modulo 2^64
      const ByteRange wanted = intersect({row_->device_offset, row_->device_offset + row_->length}, device_);
      const ByteRange part = intersect({wanted.begin - shift, wanted.end - shift}, piece);
      if (!part.empty())
        HYDRANT_TRY_VOID(out_.put(part.begin + shift, bytes.subspan(part.begin - tar_offset, part.size())));
      if (wanted.end - shift > piece.end) break;
    }
    return {};
  }

 private:
  Rows::const_iterator row_;
  const Rows::const_iterator end_;
  const ByteRange device_;
  GranuleAssembler& out_;
};

}  // namespace

// From the first to the last byte of the tar that `device` holds. Every granule holds some: LayerIndex refuses rows
// that leave two blocks, or the last one, without data.
ByteRange LayerLayout::tar_range(ByteRange device) const {
  const Rows& rows = index_->rows();
  const auto first = row_at_device(rows, device.begin);
  auto last =
      std::partition_point(first, rows.end(), [&](const LayoutRow& row) { return row.device_offset < device.end; });
  HYDRANT_CHECK(first != last, "a granule without data: decode_rows refuses such rows");
  --last;
  return {first->tar_offset + (std::max(device.begin, first->device_offset) - first->device_offset),
          last->tar_offset + (std::min(device.end, last->device_offset + last->length) - last->device_offset)};
}

// The granules all of whose data stands in `tar`.
ByteRange LayerLayout::completed_by(ByteRange tar) const {
  const Rows& rows = index_->rows();
  uint64_t begin = 0, end = device_size();  // the first byte after data before `tar`, the first of data behind it
  if (auto row = row_at_tar(rows, tar.begin); row != rows.end() && row->tar_offset < tar.begin) {
    begin = row->device_offset + (tar.begin - row->tar_offset);
  } else if (row != rows.begin()) {
    begin = std::prev(row)->device_offset + std::prev(row)->length;
  }
  if (auto row = row_at_tar(rows, tar.end); row != rows.end())
    end = row->device_offset + (std::max(tar.end, row->tar_offset) - row->tar_offset);
  begin = round_up(begin, granule());
  return {begin, std::max(begin, end == device_size() ? end : round_down(end, granule()))};
}

Fill LayerLayout::plan(ByteRange wanted) const {
  HYDRANT_CHECK(!wanted.empty() && wanted.end <= device_size(), "plan() for a range outside the device");
  Fill fill;
  fill.device = align_outward(wanted, granule());
  fill.device.end = std::min(fill.device.end, device_size());
  const ByteRange tar = tar_range(fill.device);
  if (index_->ident().compression == Compression::kNone) {
    fill.stored = tar;
    return fill;
  }
  const Span first = index_->span(index_->span_at(tar.begin)), last = index_->span(index_->span_at(tar.end - 1));
  fill.stored = {first.stored().begin, last.stored().end};
  fill.device = completed_by({first.plain().begin, last.plain().end});
  return fill;
}

Result<> LayerLayout::decode(const Fill& fill, Bytes stored, const DeviceSink& sink) const {
  const auto& ident = index_->ident();
  auto where = [&] { return "layer " + ident.digest.text() + " device bytes " + std::to_string(fill.device.begin); };
  HYDRANT_CHECK(fill.device.begin % granule() == 0 && !fill.device.empty() && fill.device.end <= device_size() &&
                    (fill.device.end % granule() == 0 || fill.device.end == device_size()),
                "decode() of a fill that plan() did not make");
  if (stored.size() != fill.stored.size())
    return fail(Code::kCorrupt, where() + ": got " + std::to_string(stored.size()) + " stored bytes instead of " +
                                    std::to_string(fill.stored.size()));

  GranuleAssembler granules(fill.device.begin, granule(), [&](uint64_t offset, Bytes bytes) -> Result<> {
    if (leaf_digest(bytes) != index_->leaves()[offset / granule()])
      return fail(Code::kCorrupt, "layer " + ident.digest.text() + ": device bytes " + std::to_string(offset) + "-" +
                                      std::to_string(offset + bytes.size()) + " do not match their digest");
    return sink(offset, bytes);
  });
  RowWalk rows(index_->rows(), fill.device, granules);
  const ByteRange tar = tar_range(fill.device);

  if (ident.compression == Compression::kNone) {
    HYDRANT_CHECK(fill.stored.contains(tar), "decode() of a fill that plan() did not make");
    HYDRANT_TRY_VOID(rows.take(fill.stored.begin, stored));
    return granules.finish(fill.device.end);
  }
  uint64_t at = tar.begin;
  for (size_t i = index_->span_at(tar.begin); at < tar.end; ++i) {
    const Span span = index_->span(i);
    HYDRANT_CHECK(fill.stored.contains(span.stored()), "decode() of a fill that plan() did not make");
    HYDRANT_TRY(auto window, index_->window(i));
    SpanDecoder decoder(span, stored.subspan(span.stored().begin - fill.stored.begin, span.stored().size()), window);
    for (at = span.plain().begin; at < std::min(tar.end, span.plain().end);) {
      auto piece = decoder.next();
      if (!piece) return fail(std::move(piece).error().in(where()));
      HYDRANT_TRY_VOID(rows.take(at, *piece));
      at += piece->size();
    }
  }
  return granules.finish(fill.device.end);
}

}  // namespace hydrant::image
