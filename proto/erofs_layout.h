// The on-disk structures of EROFS that Hydrant writes, and what it reads of images made by others: which devices they
// name. Source: the kernel's documentation of the format
// (Documentation/filesystems/erofs.rst) and observation of Linux 6.18 and erofs-utils 1.5. Little endian, as every
// machine we run on, so a structure is stored by copying it.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <type_traits>
#include <vector>

#include "base/byte_range.h"
#include "base/bytes.h"
#include "base/error.h"

namespace hydrant::proto::erofs {

inline constexpr uint32_t kMagic = 0xE0F5E1E2;
inline constexpr unsigned kBlockBits = 12;
inline constexpr uint64_t kBlockSize = 1 << kBlockBits;
inline constexpr uint64_t kSuperblockAt = 1024;
inline constexpr uint64_t kDeviceTableAt = kSuperblockAt + 128;
inline constexpr uint64_t kInodeSlot = 32;  // an inode's nid counts these from the start of the inode area
inline constexpr uint32_t kNoBlock = 0xFFFFFFFF;

inline constexpr uint32_t kCompatChecksum = 0x1;
inline constexpr uint32_t kCompatMtime = 0x2;
inline constexpr uint32_t kIncompatChunked = 0x4;
inline constexpr uint32_t kIncompatDeviceTable = 0x8;
// What images of others may have: how compressed files are padded, configured and grouped, chunks, devices, tails and
// fragments, and long attribute prefixes, which show where they are used.
inline constexpr uint32_t kIncompatRead = 0x7f;
inline constexpr uint32_t kIncompatPaddedInFront = 0x1;
// Any of them means that the indexes of compressed files that are not compact have a header, too.
inline constexpr uint32_t kIncompatPackedHeaders = 0x2 | 0x10 | 0x20;

struct Superblock {
  uint32_t magic = kMagic;
  uint32_t checksum = 0;
  uint32_t feature_compat = kCompatChecksum | kCompatMtime;
  uint8_t block_bits = kBlockBits;
  uint8_t extension_slots = 0;
  uint16_t root_nid = 0;
  uint64_t inodes = 0;
  uint64_t build_time = 0;  // the time of compact inodes
  uint32_t build_time_nsec = 0;
  uint32_t blocks = 0;  // of this image, without devices
  uint32_t meta_block = 0;
  uint32_t xattr_block = 0;
  std::array<uint8_t, 16> uuid{};
  std::array<char, 16> volume_name{};  // NUL-terminated
  uint32_t feature_incompat = kIncompatChunked;
  uint16_t compression = 0;
  uint16_t extra_devices = 0;
  uint16_t device_table_slot = kDeviceTableAt / 128;
  uint8_t directory_block_bits = 0;
  uint8_t xattr_prefix_count = 0;
  uint32_t xattr_prefix_start = 0;
  uint64_t packed_nid = 0;
  std::array<uint8_t, 24> reserved{};
};
static_assert(sizeof(Superblock) == 128);
static_assert(offsetof(Superblock, uuid) == 48 && offsetof(Superblock, feature_incompat) == 80);
static_assert(offsetof(Superblock, packed_nid) == 96);

struct DeviceSlot {
  std::array<char, 64> tag{};
  uint32_t blocks = 0;
  uint32_t unified_block = 0;  // where the device begins when all are read as one: image, then devices
  std::array<uint8_t, 56> reserved{};
};
static_assert(sizeof(DeviceSlot) == 128);

enum class Layout : uint16_t { kFlatPlain = 0, kPacked = 1, kFlatInline = 2, kPackedCompact = 3, kChunked = 4 };

constexpr uint16_t inode_format(Layout layout, bool extended) {
  return static_cast<uint16_t>(static_cast<uint16_t>(layout) << 1 | (extended ? 1 : 0));
}

struct CompactInode {
  uint16_t format = 0;
  uint16_t xattr_count = 0;
  uint16_t mode = 0;
  uint16_t nlink = 0;
  uint32_t size = 0;
  uint32_t reserved = 0;
  uint32_t u = 0;  // start block, chunk format or device number
  uint32_t ino = 0;
  uint16_t uid = 0;
  uint16_t gid = 0;
  uint32_t reserved2 = 0;
};
static_assert(sizeof(CompactInode) == 32);

struct ExtendedInode {
  uint16_t format = 0;
  uint16_t xattr_count = 0;
  uint16_t mode = 0;
  uint16_t reserved = 0;
  uint64_t size = 0;
  uint32_t u = 0;
  uint32_t ino = 0;
  uint32_t uid = 0;
  uint32_t gid = 0;
  int64_t mtime = 0;
  uint32_t mtime_nsec = 0;
  uint32_t nlink = 0;
  std::array<uint8_t, 16> reserved2{};
};
static_assert(sizeof(ExtendedInode) == 64 && offsetof(ExtendedInode, mtime) == 32);

// Chunk format of an inode: the chunk's size as a power of two above the block's, and the width of its indexes.
inline constexpr uint32_t kChunkIndexes8 = 0x20;
inline constexpr unsigned kMaxChunkBits = 31;

struct ChunkIndex {
  uint16_t reserved = 0;
  uint16_t device = 0;  // 0 is the image itself, then the slots
  uint32_t block = kNoBlock;
};
static_assert(sizeof(ChunkIndex) == 8);

// Compressed files. A file is cut into logical clusters of one size, and, anywhere, into extents; an extent is what one
// physical cluster, some blocks of the image, decodes to. The index says of each logical cluster whether an extent
// begins in it, and where. It stands behind the inode and its attributes, on 8 bytes.
struct PackedHeader {
  uint32_t tail = 0;  // the fragment's place, or 16 bits of nothing and the inline tail's size
  uint16_t advise = 0;
  uint8_t algorithms = 0;    // of the first kind of head, and, above, of the second
  uint8_t cluster_bits = 0;  // above the block's; the top bit: all of the file is a fragment, and the rest its place
};
static_assert(sizeof(PackedHeader) == 8);

inline constexpr uint16_t kAdviseCompact2 = 0x1;  // of a compact index: packs of 16 as well
inline constexpr uint16_t kAdviseExtents = 0x1;   // of one that is not: a newer format
inline constexpr uint16_t kAdviseLongClusters1 =
    0x2;  // physical clusters of several blocks: of the first kind of head,
inline constexpr uint16_t kAdviseLongClusters2 = 0x4;  // and of the second and what is not compressed
inline constexpr uint16_t kAdviseInlineTail = 0x8;
inline constexpr uint16_t kAdviseInterlaced = 0x10;  // what is not compressed is rotated to its place in the block
inline constexpr uint16_t kAdviseFragment = 0x20;    // the last extent stands in the packed inode

enum class ClusterType : uint8_t { kPlain = 0, kHead1 = 1, kInside = 2, kHead2 = 3 };
inline constexpr uint16_t kClusterPartial = 0x8000;  // the extent is only the beginning of what its cluster decodes to
inline constexpr uint32_t kClusterCount = 1 << 11;   // in a first distance: it is a number of blocks instead

// Of one logical cluster, in an index that is not compact.
struct ClusterIndex {
  uint16_t advise = 0;  // the type, and kClusterPartial
  uint16_t offset = 0;  // of a head: where the extent begins
  uint32_t u = 0;       // of a head: the block; inside: distances in clusters to the head before and the one behind
};
static_assert(sizeof(ClusterIndex) == 8);

enum class Algorithm : uint8_t { kLz4 = 0, kLzma = 1, kDeflate = 2, kZstd = 3 };

struct __attribute__((packed)) Dirent {
  uint64_t nid = 0;
  uint16_t name_at = 0;  // from the start of the directory's block
  uint8_t type = 0;
  uint8_t reserved = 0;
};
static_assert(sizeof(Dirent) == 12);

struct XattrHeader {
  uint32_t name_filter = 0;
  uint8_t shared_count = 0;
  std::array<uint8_t, 7> reserved{};
};
static_assert(sizeof(XattrHeader) == 12);

struct XattrEntry {
  uint8_t name_size = 0;  // without the prefix
  uint8_t prefix = 0;
  uint16_t value_size = 0;
};
static_assert(sizeof(XattrEntry) == 4);

enum class XattrPrefix : uint8_t { kUser = 1, kAclAccess = 2, kAclDefault = 3, kTrusted = 4, kSecurity = 6 };

// The kernel's 32-bit device number: 12 bits of major, 20 of minor.
constexpr uint32_t encode_rdev(uint32_t major, uint32_t minor) {
  return (minor & 0xff) | major << 8 | (minor & ~0xffu) << 12;
}

template <class T>
void store(Buffer& out, uint64_t at, const T& record) {
  static_assert(std::is_trivially_copyable_v<T> && std::has_unique_object_representations_v<T>);
  std::memcpy(out.data() + at, &record, sizeof record);
}

// CRC-32C as the superblock's checksum wants it: started with all ones, not inverted at the end. Of "123456789" it is
// 0x1CF96D7C.
uint32_t checksum(Bytes bytes);

// Where a mount looks first in an image, all inside its `size` bytes.
struct Outline {
  uint64_t block_size = kBlockSize;
  ByteRange root;          // the root inode; empty where a feature we do not know may have moved it
  ByteRange device_table;  // one DeviceSlot a device
  size_t devices() const { return (device_table.end - device_table.begin) / sizeof(DeviceSlot); }
};

// `superblock` is what stands at kSuperblockAt. kCorrupt: not EROFS, or it points out of the image. The checksum and
// everything else is left to the kernel.
Result<Outline> decode_outline(Bytes superblock, uint64_t size);

// The devices' names, in slot order. kCorrupt: one has none.
Result<std::vector<std::string>> decode_device_tags(Bytes device_table);

}  // namespace hydrant::proto::erofs
