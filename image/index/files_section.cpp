// The file table as columns: neighbours in a column look alike, which zstd turns into very few bytes.
#include <algorithm>
#include <array>
#include <map>

#include "base/byte_range.h"
#include "base/check.h"
#include "image/index/index_sections.h"

namespace hydrant::image {
namespace {

enum Column {
  kShared,  // bytes of the path that the one before begins with too
  kSuffixSize,
  kSuffix,
  kType,
  kMode,
  kUid,
  kGid,
  kMtime,  // difference to the one before
  kNanoseconds,
  kSize,
  kLinkSize,
  kLink,
  kDevice,    // major, minor; of device nodes only
  kXattrSet,  // 0 for none, else 1 + its place in kXattrs
  kXattrs,    // distinct sets
  kPieceCount,
  kPieces,  // row (difference to the one after the last used), hole before it
  kColumns,
};

constexpr uint64_t kMaxFiles = 8'000'000;
constexpr uint64_t kMaxText = 2ull << 30;  // of all paths, links and xattrs together
constexpr size_t kMaxPath = 4096;
constexpr uint64_t kMaxFileSize = 1ull << 44;

uint64_t zigzag(int64_t value) { return (uint64_t(value) << 1) ^ uint64_t(value >> 63); }
int64_t unzigzag(uint64_t value) { return int64_t(value >> 1) ^ -int64_t(value & 1); }

tl::unexpected<Error> corrupt(std::string what) {
  return fail(Code::kCorrupt, "layer index: files: " + std::move(what));
}

bool has_device(FileType type) { return type == FileType::kCharDevice || type == FileType::kBlockDevice; }

// As FileEntry promises: whoever merges file tables relies on it.
bool is_normalized(std::string_view path) {
  if (path.size() > kMaxPath || path.find('\0') != path.npos) return false;
  while (!path.empty()) {
    const auto name = path.substr(0, path.find('/'));
    if (name.empty() || name.size() > 255 || name == "." || name == "..") return false;
    if (name.size() == path.size()) return true;
    path.remove_prefix(name.size() + 1);
    if (path.empty()) return false;
  }
  return true;
}

Result<std::vector<Xattr>> take_xattr_set(Cursor& in) {
  const uint64_t count = in.take_varint();
  if (count > in.rest().size() / 2) return corrupt("xattr count");
  std::vector<Xattr> set(count);
  for (auto& xattr : set) {
    xattr.name = as_text(in.take_bytes(in.take_varint()));
    xattr.value = as_text(in.take_bytes(in.take_varint()));
    if (xattr.name.empty() || xattr.name.size() > 255 || xattr.value.size() > 65535) return corrupt("xattr size");
  }
  if (!in.ok() ||
      std::adjacent_find(set.begin(), set.end(), [](auto& a, auto& b) { return a.name >= b.name; }) != set.end())
    return corrupt("xattrs are not sorted");
  return set;
}

// Checks what does not concern data.
Result<> check(const FileEntry& entry) {
  if (entry.type < FileType::kRegular || entry.type > FileType::kOpaque) return corrupt("unknown type");
  const bool may_be_root = entry.type == FileType::kDirectory || entry.type == FileType::kOpaque;
  if (!is_normalized(entry.path) || (entry.path.empty() && !may_be_root)) return corrupt("bad path");
  if (entry.type == FileType::kHardLink && (!is_normalized(entry.link_target) || entry.link_target.empty()))
    return corrupt("bad hard link");
  if (entry.link_target.size() > kMaxPath || entry.link_target.find('\0') != std::string::npos)
    return corrupt("bad link target");
  if (entry.mode > 07777 || entry.mtime_nsec > 999'999'999 || entry.size > kMaxFileSize)
    return corrupt("field out of range");
  return {};
}

}  // namespace

Buffer encode_files(const FileTable& files, const std::vector<LayoutRow>& rows) {
  std::array<Buffer, kColumns> columns;
  std::map<std::vector<Xattr>, uint64_t> sets;
  std::string_view path_before;
  int64_t mtime_before = 0;
  uint64_t next_row = 0;
  for (const auto& file : files) {
    const auto shared =
        uint64_t(std::mismatch(file.path.begin(), file.path.end(), path_before.begin(), path_before.end()).first -
                 file.path.begin());
    path_before = file.path;
    append_varint(columns[kShared], shared);
    append_varint(columns[kSuffixSize], file.path.size() - shared);
    append(columns[kSuffix], as_bytes(std::string_view(file.path).substr(shared)));
    append_le<uint8_t>(columns[kType], static_cast<uint8_t>(file.type));
    append_varint(columns[kMode], file.mode);
    append_varint(columns[kUid], file.uid);
    append_varint(columns[kGid], file.gid);
    append_varint(columns[kMtime], zigzag(int64_t(uint64_t(file.mtime) - uint64_t(mtime_before))));
    mtime_before = file.mtime;
    append_varint(columns[kNanoseconds], file.mtime_nsec);
    append_varint(columns[kSize], file.size);
    append_varint(columns[kLinkSize], file.link_target.size());
    append(columns[kLink], as_bytes(file.link_target));
    if (has_device(file.type)) {
      append_varint(columns[kDevice], file.rdev_major);
      append_varint(columns[kDevice], file.rdev_minor);
    }
    uint64_t set = 0;
    if (!file.xattrs.empty()) {
      auto [found, fresh] = sets.emplace(file.xattrs, sets.size() + 1);
      set = found->second;
      if (fresh) {
        append_varint(columns[kXattrs], file.xattrs.size());
        for (const auto& xattr : file.xattrs) {
          for (const auto& text : {xattr.name, xattr.value}) {
            append_varint(columns[kXattrs], text.size());
            append(columns[kXattrs], as_bytes(text));
          }
        }
      }
    }
    append_varint(columns[kXattrSet], set);
    append_varint(columns[kPieceCount], file.data.size());
    uint64_t end = 0;
    for (const auto& piece : file.data) {
      auto row = std::lower_bound(rows.begin(), rows.end(), piece.device_offset,
                                  [](const LayoutRow& r, uint64_t offset) { return r.device_offset < offset; });
      HYDRANT_CHECK(row != rows.end() && row->device_offset == piece.device_offset && row->length == piece.length,
                    "a data piece without its row: LayerBuilder makes both");
      const auto number = uint64_t(row - rows.begin());
      append_varint(columns[kPieces], zigzag(int64_t(number - next_row)));
      append_varint(columns[kPieces], piece.file_offset - end);
      next_row = number + 1;
      end = piece.file_offset + piece.length;
    }
  }
  Buffer out;
  append_varint(out, files.size());
  append_varint(out, sets.size());
  for (const auto& column : columns) append_varint(out, column.size());
  for (const auto& column : columns) append(out, column);
  return out;
}

Result<FileTable> decode_files(Bytes raw, const std::vector<LayoutRow>& rows) {
  Cursor in(raw);
  const uint64_t count = in.take_varint(), set_count = in.take_varint();
  if (count > kMaxFiles || count > raw.size() / 12 || set_count > count) return corrupt("bad counts");
  std::array<uint64_t, kColumns> sizes{};
  for (auto& size : sizes) size = in.take_varint();
  std::vector<Cursor> columns;
  for (uint64_t size : sizes) columns.emplace_back(in.take_bytes(size));
  if (!in.ok() || !in.rest().empty()) return corrupt("bad column sizes");

  std::vector<std::vector<Xattr>> sets;
  std::vector<uint64_t> set_sizes;
  for (uint64_t i = 0; i < set_count; ++i) {
    const size_t before = columns[kXattrs].rest().size();
    HYDRANT_TRY(auto set, take_xattr_set(columns[kXattrs]));
    set_sizes.push_back(before - columns[kXattrs].rest().size() + set.size() * sizeof(Xattr));
    sets.push_back(std::move(set));
  }

  FileTable files(count);
  std::string_view path_before;
  int64_t mtime_before = 0;
  uint64_t next_row = 0, text = 0;
  for (auto& file : files) {
    const uint64_t shared = columns[kShared].take_varint();
    if (shared > path_before.size()) return corrupt("bad path prefix");
    file.path.assign(path_before.substr(0, shared));
    file.path += as_text(columns[kSuffix].take_bytes(columns[kSuffixSize].take_varint()));
    path_before = file.path;
    file.type = static_cast<FileType>(columns[kType].take<uint8_t>());
    const uint64_t mode = columns[kMode].take_varint(), uid = columns[kUid].take_varint(),
                   gid = columns[kGid].take_varint(), nanoseconds = columns[kNanoseconds].take_varint();
    if (mode > 07777 || uid > UINT32_MAX || gid > UINT32_MAX || nanoseconds > 999'999'999)
      return corrupt("field out of range");
    file.mode = uint16_t(mode);
    file.uid = uint32_t(uid);
    file.gid = uint32_t(gid);
    file.mtime = int64_t(uint64_t(mtime_before) + uint64_t(unzigzag(columns[kMtime].take_varint())));
    mtime_before = file.mtime;
    file.mtime_nsec = uint32_t(nanoseconds);
    file.size = columns[kSize].take_varint();
    file.link_target = as_text(columns[kLink].take_bytes(columns[kLinkSize].take_varint()));
    if (has_device(file.type)) {
      const uint64_t major = columns[kDevice].take_varint(), minor = columns[kDevice].take_varint();
      if (major > UINT32_MAX || minor > UINT32_MAX) return corrupt("device number out of range");
      file.rdev_major = uint32_t(major);
      file.rdev_minor = uint32_t(minor);
    }
    HYDRANT_TRY_VOID(check(file));
    const uint64_t set = columns[kXattrSet].take_varint();
    if (set > sets.size()) return corrupt("bad xattr set");
    text += file.path.size() + file.link_target.size() + (set ? set_sizes[set - 1] : 0);
    if (text > kMaxText) return corrupt("more text than any layer has");
    if (set) file.xattrs = sets[set - 1];

    const uint64_t pieces = columns[kPieceCount].take_varint();
    if (pieces > columns[kPieces].rest().size() / 2 || (pieces && file.type != FileType::kRegular))
      return corrupt("bad data");
    file.data.resize(pieces);
    uint64_t end = 0;
    for (auto& piece : file.data) {
      const uint64_t number = next_row + uint64_t(unzigzag(columns[kPieces].take_varint()));
      const uint64_t hole = columns[kPieces].take_varint();
      if (number >= rows.size() || hole > file.size - end || rows[number].length > file.size - end - hole)
        return corrupt("data outside its file");
      piece = {end + hole, rows[number].device_offset, rows[number].length};
      if ((piece.file_offset ^ piece.device_offset) % 4096 != 0) return corrupt("data off its block");
      next_row = number + 1;
      end = piece.file_offset + piece.length;
    }
  }
  for (const auto& column : columns)
    if (!column.ok() || !column.rest().empty()) return corrupt("a column has a bad size");
  return files;
}

}  // namespace hydrant::image
