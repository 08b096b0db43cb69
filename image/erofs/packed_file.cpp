#include "image/erofs/packed_file.h"

#include <algorithm>

#include "image/erofs/decompress.h"

namespace hydrant::image {
namespace {

using namespace proto::erofs;

constexpr unsigned kMaxClusterBits = 14;  // what a compact index can have; mkfs makes no larger ones
constexpr uint8_t kAllFragment = 0x80;
constexpr uint16_t kKnownAdvise =
    kAdviseLongClusters1 | kAdviseLongClusters2 | kAdviseInlineTail | kAdviseInterlaced | kAdviseFragment;
// The index that is not compact has a gap behind the header.
constexpr uint64_t kIndexGap = 8;

tl::unexpected<Error> corrupt(std::string what) { return fail(Code::kCorrupt, std::move(what)); }
tl::unexpected<Error> unsupported(std::string what) { return fail(Code::kUnsupported, std::move(what)); }

Result<> read_inside(uint64_t image_size, const ReadImage& read, uint64_t offset, MutableBytes out) {
  if (offset > image_size || out.size() > image_size - offset)
    return corrupt("something of a compressed file lies outside of the image");
  return read(offset, out);
}

// One logical cluster.
struct Cluster {
  ClusterType type = ClusterType::kPlain;
  bool partial = false;
  uint32_t offset = 0;  // of a head: where in the cluster the extent begins
  uint64_t block = 0;   // of a head
  uint32_t blocks = 0;  // inside: how many the head before has; 0: not told here
  bool head() const { return type != ClusterType::kInside; }
};

// The index of one file. A compact one consists of packs: of two clusters in 8 bytes or of 16 in 32, a block number at
// the end and in front of it for each cluster a type and a number (an offset or a distance). The heads' blocks
// follow from that one by counting.
class ClusterTable {
 public:
  ClusterTable(uint64_t image_size, const ReadImage& read, const PackedInode& inode)
      : image_size_(image_size), read_(read), inode_(inode) {
    const uint64_t base = inode.index_at + sizeof(PackedHeader);
    if (!inode.compact) return;
    // Up to a place for packs of 32 bytes, and behind the last one, packs have 8.
    first_small_ = std::min<uint64_t>(((32 - base % 32) / 4) & 7, inode.clusters());
    if (inode.advise & kAdviseCompact2) large_ = round_down(inode.clusters() - first_small_, 16);
  }

  // `number` < clusters().
  Result<Cluster> at(uint64_t number) {
    if (number < loaded_ || number >= loaded_ + pack_.size()) HYDRANT_TRY_VOID(load(number));
    return pack_[number - loaded_];
  }

  // Behind the last cluster's pack.
  uint64_t end() const {
    const Place last = place(inode_.clusters() - 1);
    return last.at + last.size;
  }

 private:
  struct Place {
    uint64_t at = 0, size = 0;  // of the pack
    uint64_t first = 0;         // of its clusters
    unsigned count = 0;
  };

  Place place(uint64_t number) const {
    const uint64_t base = inode_.index_at + sizeof(PackedHeader);
    if (!inode_.compact) {
      // Some at a time: each is read once.
      const uint64_t first = round_down(number, 64);
      const auto count = unsigned(std::min<uint64_t>(64, inode_.clusters() - first));
      return {base + kIndexGap + first * sizeof(ClusterIndex), count * sizeof(ClusterIndex), first, count};
    }
    if (number >= first_small_ && number < first_small_ + large_) {
      const uint64_t pack = (number - first_small_) / 16;
      return {base + first_small_ * 4 + pack * 32, 32, first_small_ + pack * 16, 16};
    }
    const uint64_t skipped = number < first_small_ ? 0 : large_, pack = (number - skipped) / 2;
    return {base + pack * 8 + skipped * 2, 8, skipped + pack * 2, 2};
  }

  Result<> load(uint64_t number) {
    const Place place = this->place(number);
    std::byte raw[64 * sizeof(ClusterIndex)];
    HYDRANT_TRY_VOID(read_inside(image_size_, read_, place.at, MutableBytes(raw).first(place.size)));
    pack_.assign(place.count, {});
    loaded_ = place.first;
    if (inode_.compact) return decode_pack(Bytes(raw).first(place.size));
    for (unsigned i = 0; i < place.count; ++i) {
      ClusterIndex index;
      std::memcpy(&index, raw + i * sizeof index, sizeof index);
      Cluster& cluster = pack_[i];
      cluster.type = ClusterType(index.advise & 3);
      if (cluster.head()) {
        cluster.partial = index.advise & kClusterPartial;
        cluster.offset = index.offset;
        cluster.block = index.u;
      } else if (const uint32_t distance = index.u & 0xffff; distance & kClusterCount) {
        cluster.blocks = distance & ~kClusterCount;
      }
    }
    return {};
  }

  Result<> decode_pack(Bytes raw) {
    const unsigned number_bits = std::max(inode_.cluster_bits, 12U);
    const unsigned bits = unsigned((raw.size() - sizeof(uint32_t)) * 8 / pack_.size());
    const uint32_t base = load_le<uint32_t>(raw.data() + raw.size() - sizeof(uint32_t));
    const bool long_clusters = inode_.advise & kAdviseLongClusters1;
    for (size_t i = 0; i < pack_.size(); ++i) {
      const uint32_t value = load_le<uint32_t>(raw.data() + i * bits / 8) >> (i * bits % 8);
      const uint32_t number = value & ((1U << number_bits) - 1);
      pack_[i].type = ClusterType(value >> number_bits & 3);
      if (pack_[i].head())
        pack_[i].offset = number;
      else if (number & kClusterCount)
        pack_[i].blocks = number & ~kClusterCount;
    }
    // Blocks are counted from the pack's begin: by the heads in it, or by how long the clusters are that it tells of.
    uint64_t counted = 0;
    for (size_t i = 0; i < pack_.size(); ++i) {
      Cluster& cluster = pack_[i];
      if (!long_clusters) {
        if (cluster.head()) cluster.block = base + ++counted;
        continue;
      }
      if (cluster.head()) {
        cluster.block = base + counted;
        if (i + 1 < pack_.size() && pack_[i + 1].blocks == 0) ++counted;
      }
      counted += cluster.blocks;
    }
    return {};
  }

  const uint64_t image_size_;
  const ReadImage& read_;
  const PackedInode& inode_;
  uint64_t first_small_ = 0, large_ = 0;  // clusters
  std::vector<Cluster> pack_;
  uint64_t loaded_ = 0;  // the first cluster of pack_
};

}  // namespace

std::string_view to_string(Algorithm algorithm) {
  switch (algorithm) {
    case Algorithm::kLz4: return "LZ4";
    case Algorithm::kLzma: return "LZMA";
    case Algorithm::kDeflate: return "deflate";
    case Algorithm::kZstd: return "zstd";
  }
  return "unknown";
}

uint64_t PackedInode::index_size() const {
  return all_fragment ? 0 : sizeof(PackedHeader) + (compact ? 4 * clusters() : kIndexGap + 8 * clusters());
}

Result<PackedInode> read_packed_inode(const PackedFormat& format, uint64_t image_size, const ReadImage& read,
                                      uint64_t at, uint64_t size, bool compact) {
  PackedInode inode{.size = size, .index_at = round_up(at, 8), .compact = compact, .cluster_bits = format.block_bits};
  if (!compact && !format.headers) return inode;
  std::byte raw[sizeof(PackedHeader)];
  HYDRANT_TRY_VOID(read_inside(image_size, read, inode.index_at, raw));
  PackedHeader header;
  std::memcpy(&header, raw, sizeof header);
  if (header.cluster_bits & kAllFragment) {
    inode.all_fragment = true;
    inode.fragment = load_le<uint64_t>(raw) & ~(uint64_t{1} << 63);
    return inode;
  }
  inode.advise = header.advise;
  if (!compact && header.advise & kAdviseExtents) return unsupported("is compressed with an index of extents");
  if (header.advise & ~(kKnownAdvise | kAdviseCompact2)) return unsupported("is compressed in a way not known here");
  const uint8_t algorithms[] = {uint8_t(header.algorithms & 0xf), uint8_t(header.algorithms >> 4)};
  for (int i = 0; i < 2; ++i) {
    if (algorithms[i] > uint8_t(Algorithm::kZstd))
      return unsupported("is compressed by algorithm " + std::to_string(algorithms[i]) + ", which is not known here");
    inode.algorithms[i] = Algorithm(algorithms[i]);
  }
  inode.cluster_bits = format.block_bits + (header.cluster_bits & 0xf);
  if (inode.cluster_bits > kMaxClusterBits || (header.cluster_bits & 0x70))
    return unsupported("is compressed in logical clusters of " + std::to_string(inode.cluster_bits) + " bits");
  if (compact && (header.advise & kAdviseCompact2) && inode.cluster_bits > 12)
    return unsupported("is compressed in logical clusters too large for its index");
  if (compact && !(header.advise & kAdviseLongClusters1) != !(header.advise & kAdviseLongClusters2))
    return corrupt("its compact index counts blocks in two ways");
  if (header.advise & kAdviseFragment) {
    inode.fragment = header.tail;
  } else if (header.advise & kAdviseInlineTail) {
    inode.tail_size = header.tail >> 16;
  }
  return inode;
}

struct ErofsUnpacker::Extent {
  ByteRange file{0, 0};    // never longer than kMaxErofsExtent, unless it is a fragment
  ByteRange stored{0, 0};  // in the image; of a fragment: in the packed inode
  ClusterType type = ClusterType::kPlain;
  bool partial = false;
  bool fragment = false;
  bool inline_tail = false;
};

// A file's extents, in order, from any of them on.
class ErofsUnpacker::Extents {
 public:
  Extents(uint64_t image_size, const ReadImage& read, const PackedFormat& format, const PackedInode& inode)
      : inode_(inode), format_(format), table_(image_size, read, inode_) {}

  // Its place in the file is where the one before ended. Not to be called at the end.
  Result<Extent> next() {
    const uint64_t size = inode_.size;
    HYDRANT_TRY(const Cluster head, table_.at(cluster_));
    const uint64_t begin = (cluster_ << inode_.cluster_bits) + head.offset;
    if (!head.head() || head.offset >> inode_.cluster_bits || begin >= size || begin != end_)
      return corrupt("its extents do not follow each other");
    if (marks_.empty() || cluster_ >= marks_.back().second + kMarkEvery) marks_.emplace_back(begin, cluster_);

    Extent extent;
    extent.type = head.type;
    extent.partial = head.partial;
    extent.file = {begin, size};
    uint64_t blocks = 0, clusters = 1;
    uint64_t next = cluster_ + 1;
    for (; next < inode_.clusters(); ++next) {
      HYDRANT_TRY(const Cluster cluster, table_.at(next));
      if (cluster.head()) {
        extent.file.end = (next << inode_.cluster_bits) + cluster.offset;
        break;
      }
      if (next == cluster_ + 1) blocks = cluster.blocks;
      // A fragment may be longer, but the index tells nothing more of it than its begin.
      if (++clusters > kMaxClusters && !inode_.fragment) break;
    }
    // A head at the end of the file may stand behind the last extent.
    const bool last = extent.file.end == size;
    if (extent.file.end <= begin || extent.file.end > size) return corrupt("its extents do not follow each other");
    cluster_ = next;
    end_ = extent.file.end;

    if (last && inode_.fragment) {
      extent.fragment = true;
      const uint64_t at = *inode_.fragment | (inode_.compact ? 0 : head.block << 32);
      if (at + extent.file.size() < at) return corrupt("its fragment has an impossible place");
      extent.stored = {at, at + extent.file.size()};
      return extent;
    }
    if (extent.file.size() > kMaxErofsExtent) return unsupported("has an extent of more than 12 MiB");
    if (last && inode_.tail_size > 0) {
      extent.inline_tail = true;
      const uint64_t at = table_.end(), block = uint64_t{1} << format_.block_bits;
      if (at % block + inode_.tail_size > block) return corrupt("its tail goes past its block");
      extent.stored = {at, at + inode_.tail_size};
      return extent;
    }
    const bool counted =
        inode_.advise & (head.type == ClusterType::kHead1 ? kAdviseLongClusters1 : kAdviseLongClusters2);
    const uint64_t bytes =
        counted ? std::max<uint64_t>(blocks, 1) << format_.block_bits : uint64_t{1} << inode_.cluster_bits;
    if (counted && blocks == 0 && clusters > 1) return corrupt("an extent has no length");
    if (bytes > kMaxErofsCluster) return unsupported("has a cluster of more than 1 MiB");
    extent.stored = {head.block << format_.block_bits, (head.block << format_.block_bits) + bytes};
    return extent;
  }

  bool at_end() const { return end_ >= inode_.size; }

  // The extent that holds `offset`, which lies in the file.
  Result<Extent> find(uint64_t offset) {
    if (offset < end_) {
      const auto mark = std::prev(std::upper_bound(marks_.begin(), marks_.end(), offset,
                                                   [](uint64_t at, const auto& each) { return at < each.first; }));
      end_ = mark->first;
      cluster_ = mark->second;
    }
    while (!at_end()) {
      HYDRANT_TRY(Extent extent, next());
      if (extent.file.contains(offset)) return extent;
    }
    return corrupt("its fragment lies outside of the packed inode");
  }

 private:
  static constexpr uint64_t kMarkEvery = 4096;                          // clusters
  static constexpr uint64_t kMaxClusters = kMaxErofsExtent / 4096 + 2;  // of one extent

  const PackedInode inode_;
  const PackedFormat& format_;
  ClusterTable table_;
  uint64_t cluster_ = 0;  // the next extent's head
  uint64_t end_ = 0;      // of the last extent
  // Begins of extents and their clusters, from the first on; never empty once `next` has succeeded.
  std::vector<std::pair<uint64_t, uint64_t>> marks_;
};

ErofsUnpacker::ErofsUnpacker(uint64_t image_size, const ReadImage& read, PackedFormat format,
                             std::optional<PackedInode> packed)
    : size_(image_size), read_(read), format_(format), packed_(packed) {}
ErofsUnpacker::~ErofsUnpacker() = default;

Result<> ErofsUnpacker::decode(const Extent& extent, const PackedInode& inode, Buffer& out) {
  stored_.resize(extent.stored.size());
  HYDRANT_TRY_VOID(read_inside(size_, read_, extent.stored.begin, stored_));
  out.resize(extent.file.size());
  if (extent.type == ClusterType::kPlain) {
    if (out.size() > stored_.size()) return corrupt("an extent that is not compressed is longer than its cluster");
    // Rotated: the cluster's end is what stands up to the block's end in the file.
    uint64_t turned = 0;
    if (inode.advise & kAdviseInterlaced) {
      const uint64_t block = uint64_t{1} << format_.block_bits, to_end = block - extent.file.begin % block;
      if (to_end < block) turned = std::min<uint64_t>(to_end, stored_.size());
    }
    const uint64_t first = std::min<uint64_t>(turned, out.size());
    std::copy_n(stored_.end() - ptrdiff_t(turned), first, out.begin());
    std::copy_n(stored_.begin(), out.size() - first, out.begin() + ptrdiff_t(first));
    return {};
  }
  Bytes data = stored_;
  const Algorithm algorithm = inode.algorithms[extent.type == ClusterType::kHead2];
  const bool padded = format_.padded_in_front || algorithm != Algorithm::kLz4;
  if (padded) {
    const Bytes front = data.first(std::min<uint64_t>(data.size(), uint64_t{1} << format_.block_bits));
    const auto begin = std::find_if(front.begin(), front.end(), [](std::byte b) { return b != std::byte{0}; });
    if (begin == front.end()) return corrupt("a cluster holds nothing");
    data = data.subspan(size_t(begin - front.begin()));
  }
  // Without padding in front, or of a cluster that others refer to, nothing tells where its data ends.
  return decompress(algorithm, data, out, padded && !extent.partial);
}

Result<> ErofsUnpacker::take_fragment(ByteRange range, const Sink& sink) {
  if (!packed_ || range.end > packed_->size) return corrupt("its fragment lies outside of the packed inode");
  if (!fragments_) fragments_ = std::make_unique<Extents>(size_, read_, format_, *packed_);
  while (!range.empty()) {
    if (!fragment_at_.contains(range.begin)) {
      HYDRANT_TRY(const Extent extent, fragments_->find(range.begin));
      if (extent.fragment) return corrupt("the packed inode has a fragment");
      fragment_at_ = {0, 0};
      HYDRANT_TRY_VOID(decode(extent, *packed_, fragment_));
      fragment_at_ = extent.file;
    }
    const uint64_t skip = range.begin - fragment_at_.begin, size = std::min(range.size(), fragment_at_.size() - skip);
    HYDRANT_TRY_VOID(sink(Bytes(fragment_).subspan(skip, size)));
    range.begin += size;
  }
  return {};
}

Result<> ErofsUnpacker::unpack(const PackedInode& inode, const Sink& sink) {
  if (inode.all_fragment) {
    const uint64_t at = *inode.fragment;
    if (at + inode.size < at) return corrupt("its fragment has an impossible place");
    return take_fragment({at, at + inode.size}, sink);
  }
  Extents extents(size_, read_, format_, inode);
  while (!extents.at_end()) {
    HYDRANT_TRY(const Extent extent, extents.next());
    if (extent.fragment) {
      HYDRANT_TRY_VOID(take_fragment(extent.stored, sink));
      continue;
    }
    HYDRANT_TRY_VOID(decode(extent, inode, plain_));
    HYDRANT_TRY_VOID(sink(plain_));
  }
  return {};
}

}  // namespace hydrant::image
