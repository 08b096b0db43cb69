#include "image/prefetch/access_map.h"

#include <algorithm>
#include <map>
#include <tuple>
#include <unordered_map>

namespace hydrant::image {

namespace {

// Parts of a file that a list tells apart.
constexpr uint64_t kCell = 64 << 10;

// A piece of a file's data, by its place in the device.
struct Placed {
  ByteRange device;
  uint64_t file_offset = 0;
  const FileEntry* file = nullptr;
};

std::vector<Placed> by_device(const FileTable& files) {
  std::vector<Placed> placed;
  for (const FileEntry& file : files)
    for (const DataPiece& piece : file.data)
      placed.push_back({{piece.device_offset, piece.device_offset + piece.length}, piece.file_offset, &file});
  std::sort(placed.begin(), placed.end(),
            [](const Placed& a, const Placed& b) { return a.device.begin < b.device.begin; });
  return placed;
}

using CellKey = std::tuple<Digest, std::string, uint64_t>;  // layer, path, number of the cell
struct Cell {
  uint64_t length = 0;  // less than kCell only at the file's end
  uint32_t hits = 0;
  uint64_t ms = 0;  // the mean
};
using Cells = std::map<CellKey, Cell>;

// The cells of an entry, which begins at a cell's border.
template <class Each>
void for_cells(const proto::PrefetchEntry& entry, Each each) {
  for (uint64_t at = 0; at < entry.length; at += kCell)
    each(CellKey{entry.layer, entry.path, (entry.offset + at) / kCell}, std::min(kCell, entry.length - at));
}

}  // namespace

std::vector<proto::PrefetchEntry> entries_of(const Digest& layer, const FileTable& files,
                                             const std::vector<TimedRange>& touched) {
  const std::vector<Placed> placed = by_device(files);
  std::vector<proto::PrefetchEntry> entries;
  for (const TimedRange& touch : touched) {
    auto at = std::partition_point(placed.begin(), placed.end(),
                                   [&](const Placed& each) { return each.device.end <= touch.device.begin; });
    for (; at != placed.end() && at->device.begin < touch.device.end; ++at) {
      const ByteRange part = intersect(at->device, touch.device);
      const uint64_t begin = at->file_offset + (part.begin - at->device.begin);
      const ByteRange cells = {round_down(begin, kCell),
                               std::min(round_up(begin + part.size(), kCell), at->file->size)};
      entries.push_back(
          {.layer = layer, .path = at->file->path, .offset = cells.begin, .length = cells.size(), .ms = touch.ms});
    }
  }
  return entries;
}

std::vector<TimedRange> ranges_of(const proto::PrefetchList& list, const Digest& layer, const FileTable& files) {
  std::unordered_map<std::string_view, const FileEntry*> by_path;
  for (const FileEntry& file : files)
    if (!file.data.empty()) by_path[file.path] = &file;  // of two with one path the later one counts
  std::vector<TimedRange> ranges;
  for (const proto::PrefetchEntry& entry : list.entries) {
    if (entry.layer != layer) continue;
    auto found = by_path.find(entry.path);
    if (found == by_path.end()) continue;
    const bool whole = entry.offset == 0 && entry.length == 0;
    const ByteRange wanted = {entry.offset, whole ? found->second->size : entry.offset + entry.length};
    for (const DataPiece& piece : found->second->data) {
      const ByteRange part = intersect(wanted, {piece.file_offset, piece.file_offset + piece.length});
      if (part.empty()) continue;
      const uint64_t begin = piece.device_offset + (part.begin - piece.file_offset);
      ranges.push_back({{begin, begin + part.size()}, entry.ms});
    }
  }
  std::stable_sort(ranges.begin(), ranges.end(), [](const TimedRange& a, const TimedRange& b) { return a.ms < b.ms; });
  return ranges;
}

void add_run(proto::PrefetchList& list, const std::vector<proto::PrefetchEntry>& run) {
  Cells cells;
  for (const proto::PrefetchEntry& entry : list.entries)
    for_cells(entry, [&](CellKey key, uint64_t length) {
      cells[std::move(key)] = {.length = length, .hits = entry.hits, .ms = entry.ms};
    });
  Cells seen;
  for (const proto::PrefetchEntry& entry : run)
    for_cells(entry, [&](CellKey key, uint64_t length) {
      auto [at, first] = seen.try_emplace(std::move(key), Cell{length, 1, entry.ms});
      if (!first) at->second.ms = std::min<uint64_t>(at->second.ms, entry.ms);
    });
  for (const auto& [key, cell] : seen) {
    Cell& all = cells[key];
    all.length = std::max(all.length, cell.length);
    all.ms = (all.ms * all.hits + cell.ms) / (all.hits + 1);
    ++all.hits;
  }
  ++list.runs;
  std::erase_if(cells, [&](const auto& cell) { return uint64_t{2} * cell.second.hits < list.runs; });

  // Neighbouring cells that were read alike make one entry.
  list.entries.clear();
  for (const auto& [key, cell] : cells) {
    const auto& [layer, path, number] = key;
    if (!list.entries.empty()) {
      proto::PrefetchEntry& last = list.entries.back();
      if (last.layer == layer && last.path == path && last.offset + last.length == number * kCell &&
          last.hits == cell.hits && last.ms <= cell.ms + 100 && cell.ms <= last.ms + 100) {
        last.length += cell.length;
        continue;
      }
    }
    list.entries.push_back({.layer = layer,
                            .path = path,
                            .offset = number * kCell,
                            .length = cell.length,
                            .ms = static_cast<uint32_t>(std::min<uint64_t>(cell.ms, UINT32_MAX)),
                            .hits = cell.hits});
  }
  std::stable_sort(list.entries.begin(), list.entries.end(),
                   [](const proto::PrefetchEntry& a, const proto::PrefetchEntry& b) { return a.ms < b.ms; });
  uint64_t bytes = 0;
  size_t kept = 0;
  while (kept < list.entries.size() && kept < proto::kMaxPrefetchEntries &&
         (bytes += list.entries[kept].length) <= kMaxPrefetchBytes)
    ++kept;
  list.entries.resize(kept);
}

Result<> collect(const Tree& tree, std::string_view path, TreeData& out) {
  InodeIndex at = 0;
  for (std::string_view rest = path; !rest.empty();) {
    const std::string_view name = rest.substr(0, rest.find('/'));
    rest.remove_prefix(std::min(rest.size(), name.size() + 1));
    auto children = tree.inodes[at].is_directory() ? tree.children(tree.inodes[at]) : std::span<const TreeName>();
    auto found =
        std::find_if(children.begin(), children.end(), [&](const TreeName& each) { return each.name == name; });
    if (found == children.end()) return fail(Code::kNotFound, "/" + std::string(path) + ": no such file in the image");
    at = found->inode;
  }
  std::vector<bool> seen(tree.inodes.size());
  std::vector<InodeIndex> open = {at};
  while (!open.empty()) {
    const InodeIndex index = open.back();
    open.pop_back();
    if (seen[index]) continue;
    seen[index] = true;
    const TreeInode& inode = tree.inodes[index];
    if (inode.is_directory()) {
      for (const TreeName& child : tree.children(inode)) open.push_back(child.inode);
    } else if (inode.entry->type == FileType::kRegular) {
      if (out.devices.size() <= inode.layer) out.devices.resize(inode.layer + 1);
      for (const DataPiece& piece : inode.entry->data) {
        out.devices[inode.layer].push_back({piece.device_offset, piece.device_offset + piece.length});
        out.bytes += piece.length;
      }
      ++out.files;
    }
  }
  return {};
}

}  // namespace hydrant::image
