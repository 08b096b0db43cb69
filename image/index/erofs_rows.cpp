#include "image/index/erofs_rows.h"

#include <algorithm>

#include "base/byte_range.h"
#include "image/tar/tar_path.h"

namespace hydrant::image {
namespace {

constexpr uint64_t kBlock = 4096;
constexpr uint64_t kMaxDevice = uint64_t{1} << 47;
constexpr uint64_t kMaxPieces = 16'000'000;  // after cutting: many long files over many short ones have more

// Cuts what overlaps, so that no stretch begins or ends within another.
std::vector<ByteRange> stretches_of(const FileTable& files) {
  std::vector<ByteRange> all;
  std::vector<uint64_t> edges;
  for (const auto& file : files) {
    for (const auto& piece : file.data) {
      all.push_back({piece.device_offset, piece.device_offset + piece.length});
      edges.push_back(all.back().begin);
      edges.push_back(all.back().end);
    }
  }
  std::sort(all.begin(), all.end(), [](const ByteRange& a, const ByteRange& b) { return a.begin < b.begin; });
  std::sort(edges.begin(), edges.end());
  edges.erase(std::unique(edges.begin(), edges.end()), edges.end());
  std::vector<ByteRange> cut;
  auto next = all.begin();
  uint64_t covered = 0;  // by what begins at or before the edge
  for (size_t i = 0; i + 1 < edges.size(); ++i) {
    for (; next != all.end() && next->begin <= edges[i]; ++next) covered = std::max(covered, next->end);
    if (edges[i] < covered) cut.push_back({edges[i], edges[i + 1]});
  }
  return cut;
}

}  // namespace

Result<std::vector<LayoutRow>> place_erofs(ErofsTable& table) {
  std::vector<LayoutRow> rows;
  uint64_t end = 0;
  for (const ByteRange& stretch : stretches_of(table.files)) {
    rows.push_back({round_up(end, kBlock), stretch.begin, stretch.size()});
    end = rows.back().device_offset + rows.back().length;
  }
  table.pieces = 0;
  for (auto& file : table.files) {
    std::vector<DataPiece> placed;
    for (const DataPiece& piece : file.data) {
      auto row = std::lower_bound(rows.begin(), rows.end(), piece.device_offset,
                                  [](const LayoutRow& each, uint64_t at) { return each.tar_offset < at; });
      for (uint64_t done = 0; done < piece.length; done += row->length, ++row) {
        if ((piece.file_offset + done) % kBlock != 0)
          return fail(Code::kUnsupported,
                      "EROFS image: " + printable(file.path) + " shares a part of a block with another file");
        if (++table.pieces > kMaxPieces) return fail(Code::kUnsupported, "EROFS image: its files share too much");
        placed.push_back({piece.file_offset + done, row->device_offset, row->length});
      }
    }
    file.data = std::move(placed);
  }
  uint64_t decoded_at = table.image_size;
  for (const auto& [index, inode] : table.packed) {
    rows.push_back({round_up(end, kBlock), decoded_at, inode.size});
    end = rows.back().device_offset + inode.size;
    decoded_at += inode.size;
    if (end > kMaxDevice) return fail(Code::kUnsupported, "EROFS image: its files decode to more than 128 TiB");
    table.files[index].data = {{0, rows.back().device_offset, inode.size}};
    ++table.pieces;
  }
  return rows;
}

}  // namespace hydrant::image
