// For tests: EROFS images put together by hand, so that each can be wrong in one place. Data in blocks of its own
// behind 16 blocks of inodes.
#pragma once

#include <lz4.h>

#include <algorithm>
#include <map>
#include <string>
#include <vector>

#include "base/byte_range.h"
#include "base/bytes.h"
#include "image/erofs/reader.h"
#include "proto/erofs_layout.h"

namespace hydrant::image::fixture {

namespace erofs = proto::erofs;

// A physical cluster in the image.
struct ErofsCluster {
  bool packed = true;
  uint32_t block = 0;
  uint32_t blocks = 0;
};

struct ErofsExtent {
  ErofsCluster cluster;
  uint64_t length = 0;  // in the file
  bool partial = false;
};

inline Buffer lz4(Bytes plain) {
  Buffer out(size_t(LZ4_compressBound(int(plain.size()))));
  out.resize(size_t(LZ4_compress_default(reinterpret_cast<const char*>(plain.data()),
                                         reinterpret_cast<char*>(out.data()), int(plain.size()), int(out.size()))));
  return out;
}

struct ErofsAttributes {
  uint16_t mode = 0100644;
  uint64_t mtime = 1'700'000'000;
  std::map<std::string, std::string> user, trusted;  // inline
  std::vector<uint32_t> shared;                      // ids
};

class ErofsMaker {
 public:
  static constexpr uint64_t kInodeBlocks = 16;

  ErofsMaker() : bytes_((1 + kInodeBlocks) * erofs::kBlockSize) { super.meta_block = 1; }

  // Each yields the nid.
  uint64_t plain(Bytes data, const ErofsAttributes& attributes = {}) {
    return inode(erofs::Layout::kFlatPlain, data.size(), data.empty() ? erofs::kNoBlock : block(data), attributes, {});
  }
  // The whole blocks, and behind the inode the tail.
  uint64_t inlined(Bytes data, const ErofsAttributes& attributes = {}) {
    const uint64_t whole = data.empty() ? 0 : round_down(data.size() - 1, erofs::kBlockSize);
    return inode(erofs::Layout::kFlatInline, data.size(), whole ? block(data.first(whole)) : erofs::kNoBlock,
                 attributes, data.subspan(whole));
  }
  // Chunks of a block each.
  uint64_t chunked(uint64_t size, const std::vector<uint32_t>& blocks, const ErofsAttributes& attributes = {}) {
    Buffer indexes;
    for (uint32_t each : blocks) {
      append_le<uint32_t>(indexes, 0);
      append_le<uint32_t>(indexes, each);
    }
    return inode(erofs::Layout::kChunked, size, erofs::kChunkIndexes8, attributes, indexes);
  }
  // `stored` ends with the cluster; what is not packed begins with it.
  ErofsCluster cluster(Bytes stored, bool packed = true) {
    const Buffer padding(round_up(stored.size(), erofs::kBlockSize) - stored.size());
    Buffer all = packed ? padding : to_buffer(stored);
    append(all, packed ? stored : Bytes(padding));
    return {packed, block(all), uint32_t(all.size() / erofs::kBlockSize)};
  }
  // Compressed, with an index that is not compact. Extents begin in logical clusters of their own.
  uint64_t packed(const std::vector<ErofsExtent>& extents, erofs::PackedHeader header = {}) {
    super.feature_incompat |= erofs::kIncompatPaddedInFront | 0x2 | 0x20;
    header.advise |= erofs::kAdviseLongClusters1 | erofs::kAdviseLongClusters2;
    uint64_t size = 0;
    std::map<uint64_t, erofs::ClusterIndex> heads;
    std::map<uint64_t, uint32_t> blocks;
    for (const auto& extent : extents) {
      const uint64_t cluster = size / erofs::kBlockSize;
      const auto type = extent.cluster.packed ? erofs::ClusterType::kHead1 : erofs::ClusterType::kPlain;
      heads[cluster] = {uint16_t(uint16_t(type) | (extent.partial ? erofs::kClusterPartial : 0)),
                        uint16_t(size % erofs::kBlockSize), extent.cluster.block};
      blocks[cluster + 1] = extent.cluster.blocks;
      size += extent.length;
    }
    Buffer index(sizeof header + 8);
    erofs::store(index, 0, header);
    for (uint64_t i = 0; i * erofs::kBlockSize < size; ++i) {
      erofs::ClusterIndex each{uint16_t(erofs::ClusterType::kInside), 0, 2};
      if (const auto head = heads.find(i); head != heads.end()) {
        each = head->second;
      } else if (blocks.contains(i)) {
        each.u = erofs::kClusterCount | blocks[i];
      }
      index.resize(index.size() + sizeof each);
      erofs::store(index, index.size() - sizeof each, each);
    }
    return inode(erofs::Layout::kPacked, size, 0, {}, index);
  }
  // All of it stands in the packed inode, which must not be the first one made.
  uint64_t fragment(uint64_t size, uint64_t offset) {
    super.feature_incompat |= 0x20;
    Buffer header;
    append_le<uint64_t>(header, offset | uint64_t{1} << 63);
    return inode(erofs::Layout::kPacked, size, 0, {}, header);
  }
  uint64_t node(uint16_t mode, uint32_t rdev) {
    ErofsAttributes attributes;
    attributes.mode = mode;
    return inode(erofs::Layout::kFlatPlain, 0, rdev, attributes, {});
  }
  uint64_t link(std::string_view target) {
    ErofsAttributes attributes;
    attributes.mode = 0120777;
    return inlined(as_bytes(target), attributes);
  }
  // One block at most; "." and ".." are added unless they are there.
  uint64_t directory(std::map<std::string, uint64_t> entries, ErofsAttributes attributes = {}) {
    entries.emplace(".", 0), entries.emplace("..", 0);
    attributes.mode = 040755;
    Buffer heads, names;
    for (const auto& [name, nid] : entries) {
      append_le<uint64_t>(heads, nid);
      append_le<uint16_t>(heads, uint16_t(entries.size() * sizeof(erofs::Dirent) + names.size()));
      append_le<uint16_t>(heads, 0);
      append(names, as_bytes(name));
    }
    append(heads, names);
    return inode(erofs::Layout::kFlatPlain, heads.size(), block(heads), attributes, {});
  }

  // Data of its own blocks; yields the first.
  uint32_t block(Bytes data) {
    const auto at = uint32_t(bytes_.size() / erofs::kBlockSize);
    append(bytes_, data);
    bytes_.resize(round_up(bytes_.size(), erofs::kBlockSize));
    return at;
  }

  Buffer image(uint64_t root) {
    super.root_nid = uint16_t(root);
    Buffer out = bytes_;
    erofs::store(out, erofs::kSuperblockAt, super);
    return out;
  }

  erofs::Superblock super;

 private:
  static void attribute(Buffer& out, erofs::XattrPrefix prefix, std::string_view name, std::string_view value) {
    append_le<uint8_t>(out, uint8_t(name.size()));
    append_le<uint8_t>(out, uint8_t(prefix));
    append_le<uint16_t>(out, uint16_t(value.size()));
    append(out, as_bytes(name));
    append(out, as_bytes(value));
    out.resize(round_up(out.size(), 4));
  }

  uint64_t inode(erofs::Layout layout, uint64_t size, uint32_t u, const ErofsAttributes& attributes, Bytes behind) {
    Buffer xattrs;
    if (!attributes.user.empty() || !attributes.trusted.empty() || !attributes.shared.empty()) {
      append_le<uint32_t>(xattrs, 0);
      append_le<uint32_t>(xattrs, uint32_t(attributes.shared.size()));
      append_le<uint32_t>(xattrs, 0);
      for (uint32_t id : attributes.shared) append_le<uint32_t>(xattrs, id);
      for (const auto& [name, value] : attributes.trusted) attribute(xattrs, erofs::XattrPrefix::kTrusted, name, value);
      for (const auto& [name, value] : attributes.user) attribute(xattrs, erofs::XattrPrefix::kUser, name, value);
    }
    uint64_t at = next_;
    const uint64_t body = sizeof(erofs::ExtendedInode) + xattrs.size();
    if (at % erofs::kBlockSize + body + 8 + behind.size() > erofs::kBlockSize) at = round_up(at, erofs::kBlockSize);
    erofs::ExtendedInode raw;
    raw.format = erofs::inode_format(layout, true);
    raw.xattr_count = xattrs.empty() ? uint16_t(0) : uint16_t(1 + (xattrs.size() - sizeof(erofs::XattrHeader)) / 4);
    raw.mode = attributes.mode;
    raw.size = size;
    raw.u = u;
    raw.mtime = int64_t(attributes.mtime);
    raw.nlink = 1;
    const uint64_t start = erofs::kBlockSize + at;
    erofs::store(bytes_, start, raw);
    std::ranges::copy(xattrs, bytes_.begin() + ptrdiff_t(start + sizeof raw));
    const uint64_t behind_at = layout == erofs::Layout::kFlatInline ? start + body : round_up(start + body, 8);
    std::ranges::copy(behind, bytes_.begin() + ptrdiff_t(behind_at));
    next_ = round_up(behind_at + behind.size() - erofs::kBlockSize, erofs::kInodeSlot);
    return at / erofs::kInodeSlot;
  }

  Buffer bytes_;
  uint64_t next_ = 0;  // byte of the inode area
};

// `image` outlives it.
inline ReadImage reader_of(Bytes image) {
  return [image](uint64_t offset, MutableBytes out) {
    std::ranges::copy(image.subspan(offset, out.size()), out.begin());
    return Result<>();
  };
}

inline Result<ErofsTable> read_erofs(Bytes image) { return image::read_erofs(image.size(), reader_of(image)); }

}  // namespace hydrant::image::fixture
