#include "image/index/device_writer.h"

#include <algorithm>

#include "base/check.h"
#include "proto/merkle.h"

namespace hydrant::image {
namespace {

constexpr uint64_t kBlock = 4096;
constexpr uint64_t kSinkPiece = 1 << 20;
constexpr size_t kMaxXattrName = 255, kMaxXattrValue = 65535;  // as EROFS and the index store them

}  // namespace

Result<> check_xattrs(const FileEntry& entry) {
  for (const auto& xattr : entry.xattrs)
    if (xattr.name.size() > kMaxXattrName || xattr.value.size() > kMaxXattrValue)
      return fail(Code::kUnsupported, entry.path + " has an extended attribute larger than file systems take");
  return {};
}

void DevicePlacer::place(FileEntry& entry, const std::vector<TarSegment>& segments) {
  uint64_t block_after = 0;  // the block of the file behind the last one placed
  for (const auto& segment : segments) {
    const bool shares_block = segment.file_offset / kBlock < block_after;
    const uint64_t base = shares_block ? round_down(end_ - 1, kBlock) : round_up(end_, kBlock);
    const uint64_t offset = base + segment.file_offset % kBlock;
    entry.data.push_back({segment.file_offset, offset, segment.length});
    rows.push_back({offset, segment.tar_offset, segment.length});
    end_ = offset + segment.length;
    block_after = (segment.file_offset + segment.length + kBlock - 1) / kBlock;
  }
}

void DevicePlacer::assume(std::vector<LayoutRow> placed) {
  rows = std::move(placed);
  end_ = rows.empty() ? 0 : rows.back().device_offset + rows.back().length;
}

uint64_t DevicePlacer::size() const { return round_up(end_, kBlock); }

DeviceWriter::DeviceWriter(uint32_t granule, DeviceSink sink)
    : granule_(granule),
      sink_(std::move(sink)),
      assembler_(0, std::max<uint64_t>(granule, kSinkPiece),
                 [this](uint64_t offset, Bytes bytes) { return emit(offset, bytes); }) {}

Result<> DeviceWriter::on_entry(FileEntry&& entry, TarData&& data) {
  HYDRANT_TRY_VOID(check_xattrs(entry));
  placer_.place(entry, data.segments);
  files.push_back(std::move(entry));
  return {};
}

Result<> DeviceWriter::assume(FileTable table, std::vector<LayoutRow> rows) {
  for (const auto& entry : table) HYDRANT_TRY_VOID(check_xattrs(entry));
  files = std::move(table);
  placer_.assume(std::move(rows));
  return {};
}

Result<> DeviceWriter::on_data(uint64_t tar_offset, Bytes bytes) {
  const auto& rows = placer_.rows;
  while (current_row_ < rows.size() && rows[current_row_].tar_offset + rows[current_row_].length <= tar_offset)
    ++current_row_;
  HYDRANT_CHECK(current_row_ < rows.size() && rows[current_row_].tar_offset <= tar_offset,
                "data of no segment: TarVisitor::on_data");
  const auto& row = rows[current_row_];
  return assembler_.put(row.device_offset + (tar_offset - row.tar_offset), bytes);
}

Result<uint64_t> DeviceWriter::finish() {
  const uint64_t size = placer_.size();
  HYDRANT_TRY_VOID(assembler_.finish(size));
  return size;
}

Result<> DeviceWriter::emit(uint64_t device_offset, Bytes bytes) {
  for (size_t at = 0; at < bytes.size(); at += granule_)
    leaves.push_back(proto::leaf_digest(bytes.subspan(at, std::min<size_t>(granule_, bytes.size() - at))));
  return sink_ ? sink_(device_offset, bytes) : Result<>();
}

}  // namespace hydrant::image
