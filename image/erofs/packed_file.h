// Compressed files of an EROFS image: where their extents stand, and what they decode to. The structures are
// proto/erofs_layout.h.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/byte_range.h"
#include "base/bytes.h"
#include "base/error.h"
#include "image/erofs/read_image.h"
#include "proto/erofs_layout.h"

namespace hydrant::image {

// As the kernel has them: a physical cluster, and what it decodes to. The memory of an `ErofsUnpacker` is that of one
// cluster and two extents.
inline constexpr uint64_t kMaxErofsCluster = 1 << 20;
inline constexpr uint64_t kMaxErofsExtent = 12 << 20;

// What holds for all of an image's compressed files.
struct PackedFormat {
  unsigned block_bits = proto::erofs::kBlockBits;
  bool padded_in_front = false;  // clusters end with their data; else they begin with it
  bool headers = false;          // see kIncompatPackedHeaders
};

struct PackedInode {
  uint64_t size = 0;      // of the file, more than 0
  uint64_t index_at = 0;  // of its header, in the image
  bool compact = false;
  uint16_t advise = 0;
  proto::erofs::Algorithm algorithms[2] = {};
  unsigned cluster_bits = 0;  // of a logical cluster
  uint64_t tail_size = 0;     // of the inline tail as it is stored; 0: there is none
  // Of the fragment, in the packed inode. Not compact, and not all of the file: its lower 32 bits.
  std::optional<uint64_t> fragment = std::nullopt;
  bool all_fragment = false;

  uint64_t clusters() const { return ((size - 1) >> cluster_bits) + 1; }
  uint64_t index_size() const;  // an upper bound, header included; 0 when all of it is a fragment
};

// Reads the header. `at` is the first byte behind the inode and its attributes. kUnsupported: a format or an algorithm
// that is not known here.
Result<PackedInode> read_packed_inode(const PackedFormat& format, uint64_t image_size, const ReadImage& read,
                                      uint64_t at, uint64_t size, bool compact);

std::string_view to_string(proto::erofs::Algorithm algorithm);

// Decodes files. Trusts nothing: time is proportional to what it yields, and to the packed inode once for all files
// when they come in the order of their fragments. Not thread-safe.
class ErofsUnpacker {
 public:
  // Takes bytes in order, at most kMaxErofsExtent at a time, valid during the call.
  using Sink = std::function<Result<>(Bytes)>;

  // `packed`: the inode that holds the fragments. `read` outlives it.
  ErofsUnpacker(uint64_t image_size, const ReadImage& read, PackedFormat format, std::optional<PackedInode> packed);
  ~ErofsUnpacker();

  // All of the file. kCorrupt: its index contradicts itself, points out of the image, or does not decode;
  // kUnsupported: larger clusters than the kernel takes.
  Result<> unpack(const PackedInode& inode, const Sink& sink);

 private:
  class Extents;
  struct Extent;
  Result<> decode(const Extent& extent, const PackedInode& inode, Buffer& out);
  Result<> take_fragment(ByteRange range, const Sink& sink);

  const uint64_t size_;
  const ReadImage& read_;
  const PackedFormat format_;
  const std::optional<PackedInode> packed_;
  Buffer stored_;                       // of one cluster
  Buffer plain_;                        // of one extent
  std::unique_ptr<Extents> fragments_;  // of the packed inode
  Buffer fragment_;                     // what its extent decodes to that was needed last
  ByteRange fragment_at_{0, 0};
};

}  // namespace hydrant::image
