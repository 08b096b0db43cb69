#include "image/erofs/reader.h"

#include <algorithm>
#include <optional>
#include <unordered_map>
#include <unordered_set>
#include <utility>

#include "base/byte_range.h"
#include "image/tar/tar_path.h"
#include "proto/erofs_layout.h"

namespace hydrant::image {
namespace {

using namespace proto::erofs;

constexpr uint64_t kMaxFiles = 8'000'000;  // as a layer index takes
constexpr uint64_t kMaxPieces = 16'000'000;
constexpr uint64_t kMaxText = 512 << 20;  // of all paths and attributes: names and shared attributes can be had often
constexpr uint64_t kMaxFileSize = 1ull << 44;
constexpr uint64_t kWindow = 128 << 10;  // bytes read at once: inodes stand close together

constexpr uint16_t kModeType = 0170000;
constexpr uint32_t kChunkFormatBits = 0x1f;

tl::unexpected<Error> corrupt(std::string what) { return fail(Code::kCorrupt, std::move(what)); }
tl::unexpected<Error> unsupported(std::string what) { return fail(Code::kUnsupported, std::move(what)); }

// The parts of both kinds of inode that matter.
struct Inode {
  uint64_t nid = 0;
  Layout layout = Layout::kFlatPlain;
  uint16_t mode = 0;
  uint64_t size = 0;
  uint32_t u = 0;
  uint32_t uid = 0, gid = 0;
  int64_t mtime = 0;
  uint32_t mtime_nsec = 0;
  ByteRange xattrs;  // in the image
};

std::optional<FileType> type_of(uint16_t mode) {
  switch (mode & kModeType) {
    case 0010000: return FileType::kFifo;
    case 0020000: return FileType::kCharDevice;
    case 0040000: return FileType::kDirectory;
    case 0060000: return FileType::kBlockDevice;
    case 0100000: return FileType::kRegular;
    case 0120000: return FileType::kSymlink;
    case 0140000: return FileType::kSocket;
  }
  return std::nullopt;
}

std::optional<std::string> xattr_name(uint8_t prefix, std::string_view rest) {
  switch (static_cast<XattrPrefix>(prefix)) {
    case XattrPrefix::kUser: return "user." + std::string(rest);
    case XattrPrefix::kAclAccess: return "system.posix_acl_access";
    case XattrPrefix::kAclDefault: return "system.posix_acl_default";
    case XattrPrefix::kTrusted: return "trusted." + std::string(rest);
    case XattrPrefix::kSecurity: return "security." + std::string(rest);
  }
  return std::nullopt;
}

class Reader {
 public:
  Reader(uint64_t size, const ReadImage& read) : size_(size), read_(read), budget_(size) {}

  Result<ErofsTable> run() {
    auto begun = read_superblock();
    if (!begun) return fail(std::move(begun).error().in("EROFS image"));
    table_.image_size = size_;
    table_.packed_format = {.block_bits = super_.block_bits,
                            .padded_in_front = bool(super_.feature_incompat & kIncompatPaddedInFront),
                            .headers = bool(super_.feature_incompat & kIncompatPackedHeaders)};
    std::vector<Name> pending{{std::string(), super_.root_nid}};
    while (!pending.empty()) {
      Name next = std::move(pending.back());
      pending.pop_back();
      auto added = add(next, pending);
      if (!added) return fail(std::move(added).error().in("EROFS image: " + printable(next.path)));
    }
    auto found = read_fragments();
    if (!found) return fail(std::move(found).error().in("EROFS image: its packed inode"));
    return std::move(table_);
  }

 private:
  struct Name {
    std::string path;
    uint64_t nid;
  };

  Result<Bytes> bytes(uint64_t offset, uint64_t size) {
    if (offset > size_ || size > size_ - offset) return corrupt("something lies outside of the image");
    if (offset < window_at_ || offset + size > window_at_ + window_.size()) {
      window_at_ = offset;
      window_.resize(std::min(std::max(size, kWindow), size_ - offset));
      auto filled = read_(offset, window_);
      if (!filled) {
        window_.clear();
        return fail(std::move(filled).error());
      }
    }
    return Bytes(window_).subspan(offset - window_at_, size);
  }

  // An honest image has each byte of these once; one that has them often could take for ever.
  Result<> spend(uint64_t size) {
    if (size > budget_) return corrupt("it describes more than it holds");
    budget_ -= size;
    return {};
  }
  Result<> spend_text(uint64_t size) {
    if ((text_ += size) > kMaxText) return unsupported("its names and attributes take more than 512 MiB");
    return {};
  }

  Result<> read_superblock() {
    HYDRANT_TRY(Bytes at, bytes(kSuperblockAt, sizeof super_));
    std::memcpy(&super_, at.data(), sizeof super_);
    if (super_.magic != kMagic) return corrupt("no superblock");
    if (super_.block_bits < 9 || super_.block_bits > 16) return corrupt("impossible block size");
    if (super_.block_bits < kBlockBits)
      return unsupported("its blocks are " + std::to_string(1u << super_.block_bits) + " bytes; 4096 is the least");
    if (super_.directory_block_bits != 0) return unsupported("its directories have blocks of their own size");
    if (super_.feature_incompat & ~kIncompatRead)
      return unsupported("it has features that are not known here (" + std::to_string(super_.feature_incompat) + ")");
    if (super_.feature_incompat & kIncompatDeviceTable && super_.extra_devices > 0)
      return unsupported("it keeps data on " + std::to_string(super_.extra_devices) +
                         " more devices, which a layer cannot have here");
    block_ = uint64_t{1} << super_.block_bits;
    return {};
  }

  Result<Inode> read_inode(uint64_t nid) {
    if (nid > size_ / kInodeSlot) return corrupt("an inode lies outside of the image");
    const uint64_t at = super_.meta_block * block_ + nid * kInodeSlot;
    HYDRANT_TRY(Bytes head, bytes(at, sizeof(CompactInode)));
    CompactInode compact;
    std::memcpy(&compact, head.data(), sizeof compact);
    const bool extended = compact.format & 1;
    Inode inode;
    inode.nid = nid;
    inode.layout = static_cast<Layout>(compact.format >> 1 & 7);
    if (compact.format >> 4) return unsupported("an inode of a kind that is not known here");
    inode.mode = compact.mode;
    uint64_t end = at + sizeof compact;
    if (extended) {
      HYDRANT_TRY(Bytes whole, bytes(at, sizeof(ExtendedInode)));
      ExtendedInode wide;
      std::memcpy(&wide, whole.data(), sizeof wide);
      inode.size = wide.size;
      inode.u = wide.u;
      inode.uid = wide.uid, inode.gid = wide.gid;
      inode.mtime = wide.mtime, inode.mtime_nsec = wide.mtime_nsec;
      end = at + sizeof wide;
    } else {
      inode.size = compact.size;
      inode.u = compact.u;
      inode.uid = compact.uid, inode.gid = compact.gid;
      inode.mtime = int64_t(super_.build_time), inode.mtime_nsec = super_.build_time_nsec;
    }
    if (inode.mtime_nsec > 999'999'999 || inode.size > kMaxFileSize) return corrupt("an inode's field is out of range");
    const uint64_t xattrs = compact.xattr_count ? sizeof(XattrHeader) + 4 * (uint64_t{compact.xattr_count} - 1) : 0;
    inode.xattrs = {end, end + xattrs};
    return inode;
  }

  // Where the content of a file, directory or link stands: pieces whose device_offset is the place in the image.
  Result<std::vector<DataPiece>> pieces_of(const Inode& inode) {
    std::vector<DataPiece> pieces;
    if (inode.size == 0) return pieces;
    switch (inode.layout) {
      case Layout::kFlatPlain: pieces.push_back({0, inode.u * block_, inode.size}); break;
      case Layout::kFlatInline: {
        const uint64_t whole = round_down(inode.size - 1, block_), tail = inode.size - whole, at = inode.xattrs.end;
        if (at % block_ + tail > block_) return corrupt("a file's tail goes past its block");
        if (whole > 0) pieces.push_back({0, inode.u * block_, whole});
        pieces.push_back({whole, at, tail});
        break;
      }
      case Layout::kChunked: {
        HYDRANT_TRY(pieces, chunks_of(inode));
        break;
      }
      default: return unsupported("is compressed, and no regular file");
    }
    for (const DataPiece& piece : pieces)
      if (piece.device_offset > size_ || piece.length > size_ - piece.device_offset)
        return corrupt("its data lies outside of the image");
    return pieces;
  }

  static bool is_packed(const Inode& inode) {
    return inode.size > 0 && (inode.layout == Layout::kPacked || inode.layout == Layout::kPackedCompact);
  }

  Result<PackedInode> packed_of(const Inode& inode) {
    HYDRANT_TRY(auto packed, read_packed_inode(
                                 table_.packed_format, size_,
                                 [this](uint64_t offset, MutableBytes out) -> Result<> {
                                   HYDRANT_TRY(Bytes all, bytes(offset, out.size()));
                                   std::ranges::copy(all, out.begin());
                                   return {};
                                 },
                                 inode.xattrs.end, inode.size, inode.layout == Layout::kPackedCompact));
    HYDRANT_TRY_VOID(spend(packed.index_size()));
    return packed;
  }

  // The inode that holds fragments, if a file has one, and then the files in the order of theirs: so that it is
  // decoded once, from its begin to its end.
  Result<> read_fragments() {
    auto& packed = table_.packed;
    if (std::none_of(packed.begin(), packed.end(), [](const auto& each) { return each.inode.fragment; })) return {};
    if (super_.packed_nid == 0) return corrupt("is missing");
    HYDRANT_TRY(const Inode inode, read_inode(super_.packed_nid));
    if (!is_packed(inode)) return unsupported("is not compressed");
    HYDRANT_TRY(table_.fragments, packed_of(inode));
    if (table_.fragments->fragment) return corrupt("has a fragment");
    std::stable_sort(packed.begin(), packed.end(),
                     [](const auto& a, const auto& b) { return a.inode.fragment < b.inode.fragment; });
    return {};
  }

  Result<std::vector<DataPiece>> chunks_of(const Inode& inode) {
    const bool wide = inode.u & kChunkIndexes8;
    if (inode.u & ~(kChunkFormatBits | kChunkIndexes8)) return unsupported("its chunks are of a kind not known here");
    const unsigned bits = super_.block_bits + (inode.u & kChunkFormatBits);
    const uint64_t chunk = uint64_t{1} << bits, count = ((inode.size - 1) >> bits) + 1;
    const uint64_t entry = wide ? sizeof(ChunkIndex) : sizeof(uint32_t);
    HYDRANT_TRY_VOID(spend(count * entry));
    const uint64_t at = round_up(inode.xattrs.end, entry);
    std::vector<DataPiece> pieces;
    for (uint64_t i = 0; i < count; ++i) {
      HYDRANT_TRY(Bytes raw, bytes(at + i * entry, entry));
      const uint32_t block = load_le<uint32_t>(raw.data() + entry - sizeof(uint32_t));
      if (block == kNoBlock) continue;
      if (wide && (load_le<uint16_t>(raw.data()) || load_le<uint16_t>(raw.data() + 2)))
        return unsupported("its data lies on another device");
      const DataPiece next{i << bits, block * block_, std::min(chunk, inode.size - (i << bits))};
      if (!pieces.empty() && pieces.back().file_offset + pieces.back().length == next.file_offset &&
          pieces.back().device_offset + pieces.back().length == next.device_offset) {
        pieces.back().length += next.length;
      } else {
        pieces.push_back(next);
      }
    }
    return pieces;
  }

  // Of a directory's block or a link. Holes are zeros.
  Result<Buffer> content(const std::vector<DataPiece>& pieces, ByteRange wanted) {
    Buffer out(wanted.size());
    for (const DataPiece& piece : pieces) {
      const uint64_t begin = std::max(piece.file_offset, wanted.begin),
                     end = std::min(piece.file_offset + piece.length, wanted.end);
      if (begin >= end) continue;
      HYDRANT_TRY(Bytes part, bytes(piece.device_offset + (begin - piece.file_offset), end - begin));
      std::ranges::copy(part, out.begin() + ptrdiff_t(begin - wanted.begin));
    }
    return out;
  }

  Result<> add(Name& name, std::vector<Name>& pending) {
    if (table_.files.size() >= kMaxFiles) return unsupported("it has more than 8 million files");
    HYDRANT_TRY(const Inode inode, read_inode(name.nid));
    const auto type = type_of(inode.mode);
    if (!type) return corrupt("an inode of no type");
    if (name.path.empty() && *type != FileType::kDirectory) return corrupt("the root is no directory");
    FileEntry entry;
    entry.path = name.path;
    if (*type == FileType::kCharDevice && inode.u == 0) {
      entry.type = FileType::kWhiteout;
      table_.files.push_back(std::move(entry));
      return {};
    }
    if (*type != FileType::kDirectory) {
      auto [first, fresh] = files_.try_emplace(name.nid, table_.files.size());
      if (!fresh) {
        entry.type = FileType::kHardLink;
        entry.link_target = table_.files[first->second].path;
        HYDRANT_TRY_VOID(spend_text(entry.link_target.size()));
        table_.files.push_back(std::move(entry));
        return {};
      }
    } else if (!directories_.insert(name.nid).second) {
      return corrupt("a directory has two names");
    }
    entry.type = *type;
    entry.mode = inode.mode & 07777;
    entry.uid = inode.uid, entry.gid = inode.gid;
    entry.mtime = inode.mtime, entry.mtime_nsec = inode.mtime_nsec;
    bool opaque = false;
    HYDRANT_TRY_VOID(read_xattrs(inode, entry, opaque));
    switch (*type) {
      case FileType::kRegular: {
        entry.size = inode.size;
        if (is_packed(inode)) {
          HYDRANT_TRY(auto packed, packed_of(inode));
          table_.packed.push_back({table_.files.size() + (opaque ? 1 : 0), std::move(packed)});
          break;
        }
        HYDRANT_TRY(entry.data, pieces_of(inode));
        if ((table_.pieces += entry.data.size()) > kMaxPieces) return unsupported("its files have too many pieces");
        break;
      }
      case FileType::kSymlink: {
        if (inode.size == 0) return corrupt("a symbolic link has no target");
        if (inode.size > kMaxSymlink) return unsupported("a symbolic link's target is longer than 4095 bytes");
        HYDRANT_TRY_VOID(spend_text(inode.size));
        HYDRANT_TRY(auto pieces, pieces_of(inode));
        HYDRANT_TRY(auto target, content(pieces, {0, inode.size}));
        entry.link_target = as_text(target);
        if (entry.link_target.find('\0') != std::string::npos) return corrupt("a symbolic link's target holds a NUL");
        break;
      }
      case FileType::kCharDevice:
      case FileType::kBlockDevice:
        entry.rdev_major = inode.u >> 8 & 0xfff;
        entry.rdev_minor = (inode.u & 0xff) | (inode.u >> 12 & 0xfff00);
        break;
      default: break;
    }
    if (opaque) {
      FileEntry mark;
      mark.path = name.path;
      mark.type = FileType::kOpaque;
      table_.files.push_back(std::move(mark));
    }
    table_.files.push_back(std::move(entry));
    return *type == FileType::kDirectory ? list(inode, name.path, pending) : Result<>();
  }

  // What stands in the directory, to be added next and in order.
  Result<> list(const Inode& inode, const std::string& path, std::vector<Name>& pending) {
    HYDRANT_TRY_VOID(spend(inode.size));
    HYDRANT_TRY(const auto pieces, pieces_of(inode));
    const size_t first = pending.size();
    std::string before;
    for (uint64_t at = 0; at < inode.size; at += block_) {
      HYDRANT_TRY(const Buffer block, content(pieces, {at, std::min(at + block_, inode.size)}));
      HYDRANT_TRY_VOID(list_block(block, path, before, pending));
    }
    std::reverse(pending.begin() + ptrdiff_t(first), pending.end());
    return {};
  }

  Result<> list_block(Bytes block, const std::string& path, std::string& before, std::vector<Name>& pending) {
    auto entry = [&](size_t i) {
      Dirent dirent;
      std::memcpy(&dirent, block.data() + i * sizeof dirent, sizeof dirent);
      return dirent;
    };
    if (block.size() < sizeof(Dirent)) return corrupt("a directory's block is too short");
    const size_t names_at = entry(0).name_at, count = names_at / sizeof(Dirent);
    if (count == 0 || names_at % sizeof(Dirent) != 0 || names_at >= block.size())
      return corrupt("a directory's block has no names");
    for (size_t i = 0; i < count; ++i) {
      const Dirent dirent = entry(i);
      const size_t begin = dirent.name_at, end = i + 1 < count ? entry(i + 1).name_at : block.size();
      if (begin < names_at || begin >= end || end > block.size()) return corrupt("a directory's names overlap");
      std::string_view name = as_text(block.subspan(begin, end - begin));
      if (i + 1 == count) name = name.substr(0, name.find('\0'));
      if (name.empty() || name.size() > kMaxName || name.find('\0') != name.npos || name.find('/') != name.npos)
        return corrupt("a directory has an impossible name");
      // The kernel finds names by halving, so order is part of the format.
      if (!before.empty() && name <= before) return corrupt("a directory's names are out of order");
      before = name;
      if (name == "." || name == "..") continue;
      if (path.size() + 1 + name.size() > kMaxPath) return unsupported("a path is longer than 4096 bytes");
      HYDRANT_TRY_VOID(spend_text(path.size() + 1 + name.size()));
      pending.push_back({path.empty() ? std::string(name) : path + "/" + std::string(name), dirent.nid});
    }
    return {};
  }

  // One attribute at the start of `rest`; yields its size, padding included.
  Result<uint64_t> take_xattr(Bytes rest, FileEntry& entry, bool& opaque) {
    XattrEntry head;
    if (rest.size() < sizeof head) return corrupt("an attribute is cut short");
    std::memcpy(&head, rest.data(), sizeof head);
    const uint64_t size = sizeof head + head.name_size + head.value_size;
    if (size > rest.size()) return corrupt("an attribute is cut short");
    const auto name = xattr_name(head.prefix, as_text(rest.subspan(sizeof head, head.name_size)));
    if (!name) return unsupported("an attribute's name has a prefix that is not known here");
    const std::string value(as_text(rest.subspan(sizeof head + head.name_size, head.value_size)));
    if (name->size() > 255 || name->find('\0') != name->npos) return corrupt("an attribute has an impossible name");
    HYDRANT_TRY_VOID(spend_text(name->size() + value.size()));
    constexpr std::string_view kOverlay = "trusted.overlay.";
    if (name->starts_with(kOverlay)) {
      const std::string_view what = std::string_view(*name).substr(kOverlay.size());
      if (what == "redirect" || what == "metacopy" || what == "whiteout" || (what == "opaque" && value != "y"))
        return unsupported("is for an overlayfs alone (" + *name + ")");
      opaque |= what == "opaque" && entry.type == FileType::kDirectory;
    } else if (!name->starts_with("user.overlay.")) {
      entry.xattrs.push_back({*name, value});
    }
    return std::min<uint64_t>(round_up(size, 4), rest.size());
  }

  Result<> read_xattrs(const Inode& inode, FileEntry& entry, bool& opaque) {
    if (inode.xattrs.empty()) return {};
    HYDRANT_TRY_VOID(spend(inode.xattrs.size()));
    HYDRANT_TRY(Bytes raw, bytes(inode.xattrs.begin, inode.xattrs.size()));
    const Buffer body = to_buffer(raw);  // what is shared stands elsewhere
    Bytes rest = body;
    XattrHeader header;
    std::memcpy(&header, rest.data(), sizeof header);
    rest = rest.subspan(sizeof header);
    if (header.shared_count > rest.size() / 4) return corrupt("attributes are cut short");
    for (unsigned i = 0; i < header.shared_count; ++i, rest = rest.subspan(4)) {
      const uint64_t at = super_.xattr_block * block_ + uint64_t{load_le<uint32_t>(rest.data())} * 4;
      HYDRANT_TRY(Bytes head, bytes(at, sizeof(XattrEntry)));
      XattrEntry sizes;
      std::memcpy(&sizes, head.data(), sizeof sizes);
      HYDRANT_TRY(Bytes whole, bytes(at, sizeof sizes + sizes.name_size + sizes.value_size));
      HYDRANT_TRY(uint64_t taken, take_xattr(whole, entry, opaque));
      (void)taken;
    }
    while (!rest.empty()) {
      HYDRANT_TRY(uint64_t taken, take_xattr(rest, entry, opaque));
      rest = rest.subspan(taken);
    }
    std::sort(entry.xattrs.begin(), entry.xattrs.end());
    auto twice = [](const Xattr& a, const Xattr& b) { return a.name == b.name; };
    if (std::adjacent_find(entry.xattrs.begin(), entry.xattrs.end(), twice) != entry.xattrs.end())
      return corrupt("an attribute stands twice");
    return {};
  }

  const uint64_t size_;
  const ReadImage& read_;
  Superblock super_;
  uint64_t block_ = 0;
  uint64_t budget_;  // what may still be read of directories, chunk indexes and attributes
  uint64_t text_ = 0;
  Buffer window_;
  uint64_t window_at_ = 0;
  std::unordered_map<uint64_t, size_t> files_;  // entry that an inode had first
  std::unordered_set<uint64_t> directories_;    // inodes
  ErofsTable table_;
};

}  // namespace

bool is_erofs(Bytes head) {
  return head.size() >= kSuperblockAt + sizeof(uint32_t) && load_le<uint32_t>(head.data() + kSuperblockAt) == kMagic;
}

Result<ErofsTable> read_erofs(uint64_t size, const ReadImage& read) { return Reader(size, read).run(); }

std::string ErofsTable::algorithms() const {
  bool used[4] = {};
  auto note = [&](const PackedInode& inode) {
    if (!inode.all_fragment) used[size_t(inode.algorithms[0])] = true;
  };
  for (const auto& each : packed) note(each.inode);
  if (fragments) note(*fragments);
  std::string text;
  for (size_t i = 0; i < std::size(used); ++i)
    if (used[i]) text += (text.empty() ? "" : ", ") + std::string(to_string(Algorithm(i)));
  return text;
}

Result<> unpack_erofs(const ErofsTable& table, const ReadImage& read, const PackedSink& sink) {
  ErofsUnpacker unpacker(table.image_size, read, table.packed_format, table.fragments);
  for (size_t i = 0; i < table.packed.size(); ++i) {
    const auto& [file, inode] = table.packed[i];
    uint64_t at = 0;
    auto done = unpacker.unpack(inode, [&](Bytes piece) -> Result<> {
      HYDRANT_TRY_VOID(sink(i, at, piece));
      at += piece.size();
      return {};
    });
    if (!done) return fail(std::move(done).error().in("EROFS image: " + printable(table.files[file].path)));
  }
  return {};
}

}  // namespace hydrant::image
