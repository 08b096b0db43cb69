#include "image/erofs/writer.h"

#include <sys/stat.h>

#include <algorithm>
#include <string_view>

#include "base/byte_range.h"
#include "base/check.h"
#include "image/erofs/chunks.h"
#include "image/erofs/directory.h"
#include "image/erofs/xattrs.h"
#include "proto/erofs_layout.h"

namespace hydrant::image {
namespace {

using namespace proto::erofs;

constexpr uint64_t kMaxFileSize = uint64_t{1} << 44;
constexpr unsigned kMaxZeroBits = 8;       // of the chunks of a file whose holes are filled: 1 MiB
constexpr uint64_t kMaxBlocks = kNoBlock;  // addresses are 32 bits, the last one means a hole

// Where the parts of one inode stand. Positions are bytes from the start of the inode area.
struct Placement {
  uint64_t at = 0;
  uint64_t size = 0;    // i_size
  uint32_t body = 0;    // bytes of extended attributes
  uint32_t block = 0;   // first whole block of data, counted from the first data block
  uint32_t blocks = 0;  // whole blocks of data
  Layout layout = Layout::kFlatPlain;
  uint8_t chunk_bits = 0;
  bool extended = true;

  uint64_t head() const { return extended ? sizeof(ExtendedInode) : sizeof(CompactInode); }
};

uint16_t type_bits(FileType type) {
  switch (type) {
    case FileType::kRegular: return S_IFREG;
    case FileType::kDirectory: return S_IFDIR;
    case FileType::kCharDevice: return S_IFCHR;
    case FileType::kBlockDevice: return S_IFBLK;
    case FileType::kFifo: return S_IFIFO;
    case FileType::kSocket: return S_IFSOCK;
    case FileType::kSymlink: return S_IFLNK;
    case FileType::kHardLink:
    case FileType::kWhiteout:
    case FileType::kOpaque: break;
  }
  HYDRANT_CHECK(false, "merge() leaves no links and no whiteouts in a tree");
  return 0;
}

// What a directory has that no layer lists.
const FileEntry& unlisted_directory() {
  static const FileEntry entry = [] {
    FileEntry directory;
    directory.type = FileType::kDirectory;
    directory.mode = 0755;
    return directory;
  }();
  return entry;
}

// First all sizes and places are fixed, then the bytes are written.
class Writer {
 public:
  Writer(const Tree& tree, std::span<const DeviceInfo> devices, const ErofsOptions& options)
      : tree_(tree), devices_(devices), options_(options) {}

  Result<ErofsImage> write();

 private:
  const FileEntry& entry(InodeIndex inode) const {
    const FileEntry* listed = tree_.inodes[inode].entry;
    return listed ? *listed : unlisted_directory();
  }

  Result<> choose_devices();
  Result<> place_inodes();
  Result<> place_inode(InodeIndex inode);
  Result<> place_file(InodeIndex inode, Placement& placement, uint64_t& tail);
  ChunkPlan plan_file(const FileEntry& file) const;
  void place_inline(Placement& placement, uint64_t tail);
  bool is_compact(InodeIndex inode, uint64_t size) const;
  Result<> lay_out();

  void write_superblock();
  void write_inode(InodeIndex inode);
  uint32_t inode_u(InodeIndex inode) const;
  void write_content(InodeIndex inode);
  uint64_t inode_at(const Placement& placement) const { return meta_block_ * kBlockSize + placement.at; }

  const Tree& tree_;
  std::span<const DeviceInfo> devices_;
  const ErofsOptions& options_;
  ErofsImage image_;
  XattrPool xattrs_;
  std::vector<uint16_t> slot_of_layer_;  // from 1; 0 for layers without live data
  std::vector<Placement> placements_;
  std::vector<uint32_t> nids_;
  uint64_t inode_end_ = 0;    // of the inode area, from its start
  uint64_t data_blocks_ = 0;  // whole blocks of directories and long links
  uint64_t meta_block_ = 0;
  uint64_t xattr_block_ = 0;
  uint64_t data_block_ = 0;
  uint64_t zero_block_ = 0;
  uint64_t zero_blocks_ = 0;  // the largest chunk of a file whose holes are filled
  uint64_t blocks_ = 0;
  std::vector<BlockRun> runs_;  // scratch
  DirectoryBlocks directory_;   // scratch
  Buffer scratch_;
};

Result<> Writer::choose_devices() {
  slot_of_layer_.assign(devices_.size(), 0);
  for (const TreeInode& inode : tree_.inodes) {
    if (!inode.entry || inode.entry->type != FileType::kRegular || inode.entry->data.empty()) continue;
    if (inode.layer >= devices_.size()) return fail(Code::kInvalid, "the tree has layers without a device");
    slot_of_layer_[inode.layer] = 1;
  }
  for (uint32_t layer = 0; layer < devices_.size(); ++layer) {
    if (slot_of_layer_[layer] == 0) continue;
    const DeviceInfo& device = devices_[layer];
    if (device.tag.size() > sizeof DeviceSlot::tag || device.size % kBlockSize != 0) {
      return fail(Code::kInvalid, "the device of layer " + std::to_string(layer) + " has a bad tag or size");
    }
    if (device.size / kBlockSize >= kMaxBlocks || image_.used_layers.size() == UINT16_MAX) {
      return fail(Code::kUnsupported, "layer " + std::to_string(layer) + " is larger than 16 TiB or one too many");
    }
    image_.used_layers.push_back(layer);
    slot_of_layer_[layer] = static_cast<uint16_t>(image_.used_layers.size());
  }
  return {};
}

bool Writer::is_compact(InodeIndex inode, uint64_t size) const {
  const FileEntry& file = entry(inode);
  return file.mtime == options_.build_time && file.mtime_nsec == 0 && file.uid <= UINT16_MAX &&
         file.gid <= UINT16_MAX && size <= UINT32_MAX && tree_.inodes[inode].nlink <= UINT16_MAX;
}

// Of the file whose runs are in runs_.
ChunkPlan Writer::plan_file(const FileEntry& file) const {
  const uint64_t blocks = (file.size + kBlockSize - 1) / kBlockSize;
  const ChunkPlan plan = plan_chunks(runs_, blocks);
  return options_.fill_holes && has_inner_hole(runs_) ? limit_chunks(plan, blocks, kMaxZeroBits) : plan;
}

// Decides layout, size and `tail`: the bytes that stand directly behind inode and attributes.
Result<> Writer::place_file(InodeIndex inode, Placement& placement, uint64_t& tail) {
  const FileEntry& file = entry(inode);
  placement.size = file.size;
  if (file.size == 0) return {};
  if (file.size > kMaxFileSize) return fail(Code::kUnsupported, "it is larger than 16 TiB");
  uint64_t device_size = file.data.empty() ? 0 : devices_[tree_.inodes[inode].layer].size;
  HYDRANT_TRY_VOID(find_runs(file, device_size, runs_));
  const ChunkPlan plan = plan_file(file);
  if (options_.fill_holes && has_inner_hole(runs_)) zero_blocks_ = std::max(zero_blocks_, uint64_t{1} << plan.bits);
  placement.layout = Layout::kChunked;
  placement.chunk_bits = static_cast<uint8_t>(plan.bits);
  tail = plan.count * sizeof(ChunkIndex);
  return {};
}

// Puts the tail behind the inode when it fits into one block there, moving on to the next block if that costs less
// than giving the tail a block of its own.
void Writer::place_inline(Placement& placement, uint64_t tail) {
  uint64_t head = placement.head() + placement.body;
  uint64_t begin = placement.at + head;
  if (begin / kBlockSize == (begin + tail - 1) / kBlockSize) {
    placement.layout = Layout::kFlatInline;
    return;
  }
  uint64_t moved = round_up(placement.at, kBlockSize);
  bool fits = (moved + head) / kBlockSize == (moved + head + tail - 1) / kBlockSize;
  if (fits && moved - placement.at <= kBlockSize - tail) {
    placement.at = moved;
    placement.layout = Layout::kFlatInline;
    return;
  }
  ++placement.blocks;
}

Result<> Writer::place_inode(InodeIndex inode) {
  const FileEntry& file = entry(inode);
  Placement& placement = placements_[inode];
  uint64_t tail = 0;
  if (file.type == FileType::kRegular) {
    HYDRANT_TRY_VOID(place_file(inode, placement, tail));
  } else if (file.type == FileType::kDirectory) {
    directory_.load(tree_, inode);
    placement.size = directory_.size();
  } else if (file.type == FileType::kSymlink) {
    placement.size = file.link_target.size();
    if (placement.size == 0 || placement.size >= kBlockSize) {
      return fail(Code::kUnsupported, "the symbolic link's target is empty or longer than 4095 bytes");
    }
  } else if (file.rdev_major > 0xfff || file.rdev_minor > 0xfffff) {
    return fail(Code::kUnsupported, "its device number is too large");
  }
  HYDRANT_TRY(uint64_t body, xattrs_.body_size(file));
  placement.body = static_cast<uint32_t>(body);
  placement.extended = !is_compact(inode, placement.size);
  placement.at = round_up(inode_end_, kInodeSlot);
  // The inode itself lies in one block, so that reading it needs one.
  if (placement.at / kBlockSize != (placement.at + placement.head() - 1) / kBlockSize) {
    placement.at = round_up(placement.at, kBlockSize);
  }
  if (file.type == FileType::kDirectory || file.type == FileType::kSymlink) {
    placement.blocks = static_cast<uint32_t>(placement.size / kBlockSize);
    tail = placement.size % kBlockSize;
    if (tail != 0) place_inline(placement, tail);
    if (placement.layout != Layout::kFlatInline) tail = 0;
    placement.block = static_cast<uint32_t>(data_blocks_);
    data_blocks_ += placement.blocks;
  }
  uint64_t end = placement.at + placement.head() + placement.body;
  if (placement.layout == Layout::kChunked) end = round_up(end, sizeof(ChunkIndex));
  inode_end_ = end + tail;
  if (inode_end_ + data_blocks_ * kBlockSize > options_.max_bytes) {
    return fail(Code::kUnsupported, "the metadata grows past " + std::to_string(options_.max_bytes) +
                                        " bytes here; a huge sparse file, perhaps");
  }
  nids_[inode] = static_cast<uint32_t>(placement.at / kInodeSlot);
  return {};
}

Result<> Writer::place_inodes() {
  for (InodeIndex inode = 0; inode < tree_.inodes.size(); ++inode) {
    auto counted = xattrs_.count(entry(inode));
    if (!counted) return fail(std::move(counted).error().in("\"" + entry(inode).path + "\""));
  }
  xattrs_.share();
  placements_.resize(tree_.inodes.size());
  nids_.resize(tree_.inodes.size());
  for (InodeIndex inode = 0; inode < tree_.inodes.size(); ++inode) {
    auto placed = place_inode(inode);
    if (!placed) return fail(std::move(placed).error().in("\"" + entry(inode).path + "\""));
  }
  return {};
}

Result<> Writer::lay_out() {
  auto blocks = [](uint64_t size) { return (size + kBlockSize - 1) / kBlockSize; };
  meta_block_ = blocks(kDeviceTableAt + image_.used_layers.size() * sizeof(DeviceSlot));
  xattr_block_ = meta_block_ + blocks(inode_end_);
  data_block_ = xattr_block_ + blocks(xattrs_.shared().size());
  zero_block_ = data_block_ + data_blocks_;
  blocks_ = zero_block_ + zero_blocks_;
  uint64_t unified = blocks_;
  for (uint32_t layer : image_.used_layers) unified += devices_[layer].size / kBlockSize;
  if (unified >= kMaxBlocks || blocks_ * kBlockSize > options_.max_bytes) {
    return fail(Code::kUnsupported, "the image with its devices is larger than 16 TiB, or its metadata too large");
  }
  return {};
}

void Writer::write_superblock() {
  Buffer& out = image_.bytes;
  uint64_t unified = blocks_;
  uint64_t at = kDeviceTableAt;
  for (uint32_t layer : image_.used_layers) {
    const DeviceInfo& device = devices_[layer];
    DeviceSlot slot{.blocks = static_cast<uint32_t>(device.size / kBlockSize),
                    .unified_block = static_cast<uint32_t>(unified)};
    std::copy(device.tag.begin(), device.tag.end(), slot.tag.begin());
    store(out, at, slot);
    at += sizeof slot;
    unified += slot.blocks;
  }
  Superblock super;
  super.root_nid = static_cast<uint16_t>(nids_[0]);
  super.inodes = tree_.inodes.size();
  super.build_time = static_cast<uint64_t>(options_.build_time);
  super.blocks = static_cast<uint32_t>(blocks_);
  super.meta_block = static_cast<uint32_t>(meta_block_);
  super.xattr_block = xattrs_.shared().empty() ? 0 : static_cast<uint32_t>(xattr_block_);
  std::memcpy(super.uuid.data(), options_.image_id.bytes.data(), super.uuid.size());
  super.uuid[6] = (super.uuid[6] & 0x0f) | 0x80;  // RFC 9562 version 8: vendor's own
  super.uuid[8] = (super.uuid[8] & 0x3f) | 0x80;
  constexpr std::string_view kVolume = "hydrant";
  std::copy(kVolume.begin(), kVolume.end(), super.volume_name.begin());
  super.extra_devices = static_cast<uint16_t>(image_.used_layers.size());
  if (super.extra_devices > 0) super.feature_incompat |= kIncompatDeviceTable;
  store(out, kSuperblockAt, super);
  super.checksum = checksum(Bytes(out).subspan(kSuperblockAt, kBlockSize - kSuperblockAt));
  store(out, kSuperblockAt, super);
}

uint32_t Writer::inode_u(InodeIndex inode) const {
  const FileEntry& file = entry(inode);
  const Placement& placement = placements_[inode];
  switch (file.type) {
    case FileType::kCharDevice:
    case FileType::kBlockDevice: return encode_rdev(file.rdev_major, file.rdev_minor);
    case FileType::kFifo:
    case FileType::kSocket: return 0;
    default: break;
  }
  if (placement.layout == Layout::kChunked) return placement.chunk_bits | kChunkIndexes8;
  return placement.blocks == 0 ? kNoBlock : static_cast<uint32_t>(data_block_ + placement.block);
}

void Writer::write_inode(InodeIndex inode) {
  const FileEntry& file = entry(inode);
  const Placement& placement = placements_[inode];
  uint16_t format = inode_format(placement.layout, placement.extended);
  auto xattr_count =
      static_cast<uint16_t>(placement.body == 0 ? 0 : 1 + (placement.body - sizeof(XattrHeader)) / sizeof(uint32_t));
  // Nobody's permissions are asked for a symbolic link, and there is no unpacking one with other bits.
  const unsigned permissions = file.type == FileType::kSymlink ? 0777 : file.mode & 07777;
  auto mode = static_cast<uint16_t>(type_bits(file.type) | permissions);
  uint32_t nlink = tree_.inodes[inode].nlink;
  uint64_t at = inode_at(placement);
  if (placement.extended) {
    ExtendedInode out;
    out.format = format;
    out.xattr_count = xattr_count;
    out.mode = mode;
    out.size = placement.size;
    out.u = inode_u(inode);
    out.ino = inode + 1;
    out.uid = file.uid;
    out.gid = file.gid;
    out.mtime = file.mtime;
    out.mtime_nsec = file.mtime_nsec;
    out.nlink = nlink;
    store(image_.bytes, at, out);
  } else {
    CompactInode out;
    out.format = format;
    out.xattr_count = xattr_count;
    out.mode = mode;
    out.nlink = static_cast<uint16_t>(nlink);
    out.size = static_cast<uint32_t>(placement.size);
    out.u = inode_u(inode);
    out.ino = inode + 1;
    out.uid = static_cast<uint16_t>(file.uid);
    out.gid = static_cast<uint16_t>(file.gid);
    store(image_.bytes, at, out);
  }
  if (placement.body > 0) {
    xattrs_.write_body(file, MutableBytes(image_.bytes).subspan(at + placement.head(), placement.body));
  }
}

// The image's bytes of a flat inode: whole blocks, then an inline tail; the two are copied apart.
void Writer::write_content(InodeIndex inode) {
  const FileEntry& file = entry(inode);
  const Placement& placement = placements_[inode];
  MutableBytes image(image_.bytes);
  uint64_t behind = inode_at(placement) + placement.head() + placement.body;
  if (placement.layout == Layout::kChunked) {
    bool ok = find_runs(file, file.data.empty() ? 0 : devices_[tree_.inodes[inode].layer].size, runs_).has_value();
    HYDRANT_CHECK(ok, "place_file() has accepted these pieces");
    uint16_t device = file.data.empty() ? 0 : slot_of_layer_[tree_.inodes[inode].layer];
    uint64_t at = round_up(behind, sizeof(ChunkIndex));
    const ChunkPlan plan = plan_file(file);
    uint64_t holes = 0;  // blocks in front of the last run, where they are filled
    if (options_.fill_holes && !runs_.empty()) holes = runs_.back().file_block;
    uint64_t block = 0;
    make_chunks(runs_, plan, device, [&](ChunkIndex index) {
      if (index.block == kNoBlock && block < holes) index.block = static_cast<uint32_t>(zero_block_);
      store(image_.bytes, at, index);
      at += sizeof index;
      block += uint64_t{1} << plan.bits;
    });
    return;
  }
  if (file.type != FileType::kDirectory && file.type != FileType::kSymlink) return;
  scratch_.assign(placement.size, std::byte{0});
  if (file.type == FileType::kDirectory) {
    directory_.load(tree_, inode);
    directory_.write(tree_, nids_, scratch_);
  } else {
    std::memcpy(scratch_.data(), file.link_target.data(), placement.size);
  }
  uint64_t in_blocks = std::min<uint64_t>(placement.size, placement.blocks * kBlockSize);
  std::copy_n(scratch_.begin(), in_blocks, image.begin() + (data_block_ + placement.block) * kBlockSize);
  std::copy(scratch_.begin() + in_blocks, scratch_.end(), image.begin() + behind);
}

Result<ErofsImage> Writer::write() {
  HYDRANT_CHECK(!tree_.inodes.empty(), "a tree has a root");
  HYDRANT_TRY_VOID(choose_devices());
  HYDRANT_TRY_VOID(place_inodes());
  HYDRANT_TRY_VOID(lay_out());
  image_.bytes.resize(blocks_ * kBlockSize);
  image_.dropped_xattrs = xattrs_.dropped();
  for (InodeIndex inode = 0; inode < tree_.inodes.size(); ++inode) {
    write_inode(inode);
    write_content(inode);
  }
  Bytes shared = xattrs_.shared();
  std::copy(shared.begin(), shared.end(), image_.bytes.begin() + xattr_block_ * kBlockSize);
  write_superblock();
  return std::move(image_);
}

}  // namespace

Result<ErofsImage> write_erofs(const Tree& tree, std::span<const DeviceInfo> layer_devices,
                               const ErofsOptions& options) {
  return Writer(tree, layer_devices, options).write();
}

}  // namespace hydrant::image
