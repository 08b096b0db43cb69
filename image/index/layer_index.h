// What one layer's index knows: how to enter the stored blob in the middle, where file data stands, and the digests
// that prove it. The format is docs/formats/layer-index.md. Encoding is deterministic: same content, same bytes.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/byte_range.h"
#include "base/bytes.h"
#include "base/digest.h"
#include "base/error.h"
#include "image/checkpoint.h"
#include "image/file_table.h"

namespace hydrant::image {

inline constexpr uint32_t kLayoutVersion = 1;  // of the V layout; part of a device's identity

enum class Compression : uint8_t { kNone = 0, kGzip = 1, kZstd = 2 };

struct LayerIdent {
  Digest digest;             // of the stored blob
  uint64_t stored_size = 0;  // of the stored blob
  std::string media_type;    // as the manifest had it
  Digest diff_id;            // of the tar; zero in an index by chunks or stored digests, which proves none
  uint64_t tar_size = 0;     // by chunks: of their data one behind the other, which offsets of the tar then mean
  Compression compression = Compression::kNone;  // as found, whatever the media type says
  uint64_t stored_end = 0;                       // of compressed data; padding or a table of contents may follow
  uint64_t device_size = 0;                      // a multiple of 4096
  uint32_t granule = 0;                          // a leaf's device bytes: a power of two, 64 KiB .. 4 MiB
  uint64_t span = 0;                             // plain bytes asked for between checkpoints
  uint32_t layout_version = kLayoutVersion;
  std::string generator;
  bool operator==(const LayerIdent&) const = default;
};

// `length` bytes at `tar_offset` of the tar stand at `device_offset` of the device. Rows ascend in both offsets; device
// bytes between two rows are zeros, fewer than two blocks of them.
struct LayoutRow {
  uint64_t device_offset = 0;
  uint64_t tar_offset = 0;
  uint64_t length = 0;
  bool operator==(const LayoutRow&) const = default;
};

// What a table of contents says of one stretch of file data: it is entered at the start of a gzip member or zstd frame,
// and proven by a digest of its own. Several may share a member.
struct Chunk {
  uint64_t stored_offset = 0;  // of the member
  uint64_t inner_offset = 0;   // of the data in what the member yields
  uint64_t length = 0;         // of the data; never 0
  Digest digest;               // SHA-256 of the data
  bool operator==(const Chunk&) const = default;
};

// Of an EROFS image with files that are compressed inside of it: no stretch of the stored blob yields a file's bytes by
// itself, so its device is made of all of the layer. Rows reach past the image into what those files decode to.
struct Decoded {
  uint64_t size = 0;  // of that; 0: no such layer
  std::string how;    // for people: "LZ4"
  bool operator==(const Decoded&) const = default;
};

// A chunk is held in memory until it is proven, with what else its member yields in front of it.
inline constexpr uint64_t kMaxChunk = 32 << 20;

// What a caller knows of the layer from its manifest and config. Zero digests and an empty optional are not compared.
struct LayerExpectation {
  Digest digest;
  std::optional<uint64_t> size;
  Digest diff_id;
  std::string media_type;
};

// A span is fetched and decoded whole, for one byte of it too. A layer with a longer one (zstd in few frames) is not
// worth reading in the middle: its device is filled before it is mounted.
inline constexpr uint64_t kMaxLazySpan = 32 << 20;  // stored bytes
inline bool is_lazy(uint64_t widest_span) { return widest_span <= kMaxLazySpan; }
uint64_t widest_span(const std::vector<Checkpoint>& checkpoints, uint64_t stored_end);
uint64_t widest_span(const std::vector<Chunk>& chunks, uint64_t stored_end);

// Everything an index holds, for the writer. An index has checkpoints and leaves, checkpoints and stored digests, or
// chunks; with leaves it may be of a layer that is decoded.
struct LayerIndexContent {
  LayerIdent ident;
  std::vector<Checkpoint> checkpoints;  // empty for plain tar with leaves
  std::vector<Buffer> windows;          // one a checkpoint, zstd frames, empty at member starts
  FileTable files;
  std::vector<LayoutRow> rows;
  std::vector<Digest> leaves;
  Digest toc{};                          // of the table of contents that the chunks are from; zero: an index by spans
  std::vector<Chunk> chunks{};           // ascending as they are stored
  std::vector<Digest> stored_digests{};  // SHA-256 of each span's stored bytes, the byte that it shares included
  Decoded decoded{};
};

Buffer encode_layer_index(const LayerIndexContent& content);

// A loaded index. Immutable and thread-safe. Holds spans, rows and leaves in memory; windows and files stay in the file
// (or the buffer) and are decoded when asked for.
class LayerIndex {
 public:
  // Checks structure, every section's digest, every offset and count, the Merkle root, and `expected`; any mismatch is
  // kCorrupt, a newer version kUnsupported. The file must not be written to while it is in use (replace it by rename);
  // a changed one can make reads fail, never yield wrong device bytes.
  static Result<std::shared_ptr<const LayerIndex>> load_file(const std::string& path, const LayerExpectation& expected);
  static Result<std::shared_ptr<const LayerIndex>> load(Buffer bytes, const LayerExpectation& expected);
  ~LayerIndex();

  const LayerIdent& ident() const { return ident_; }
  const Digest& merkle_root() const { return root_; }
  const std::vector<LayoutRow>& rows() const { return rows_; }
  const std::vector<Digest>& leaves() const { return leaves_; }

  // Of a layer that is read by its table of contents: that one's digest, zero for others, and its chunks. Such an index
  // has neither spans nor leaves; its rows ascend through the chunks' data, one chunk behind the other.
  const Digest& toc() const { return toc_; }
  bool by_chunks() const { return !toc_.is_zero(); }
  const std::vector<Chunk>& chunks() const { return chunks_; }
  // Where the chunk's data begins in the plain stream; of chunks().size(): the stream's end.
  uint64_t chunk_begin(size_t i) const { return i ? chunk_ends_[i - 1] : 0; }
  size_t chunk_at(uint64_t plain_offset) const;

  // Of spans that are proven as they are stored: one a span. Such an index has no leaves.
  const std::vector<Digest>& stored_digests() const { return stored_digests_; }
  bool proven_as_stored() const { return !stored_digests_.empty(); }

  // Not of a plain tar with leaves: spans cut both the stored blob and the tar.
  size_t span_count() const { return checkpoints_.size(); }
  Span span(size_t i) const;
  // The span that holds the plain byte. `plain_offset` < tar_size.
  size_t span_at(uint64_t plain_offset) const;
  // Stored bytes of the longest one; see is_lazy. By chunks: of the longest member.
  uint64_t widest_span() const;

  // Of a layer that is decoded as a whole.
  const Decoded& decoded() const { return decoded_; }
  // Whether the layer is worth reading in the middle.
  bool lazy() const { return decoded_.size == 0 && is_lazy(widest_span()); }
  // Decompressed; empty at a member's start.
  Result<Buffer> window(size_t i) const;

  // Decodes anew at each call: callers that need it twice keep it.
  Result<FileTable> files() const;

 private:
  class Store;
  LayerIndex() = default;
  static Result<std::shared_ptr<const LayerIndex>> load(std::unique_ptr<Store> store, const LayerExpectation& expected);

  LayerIdent ident_;
  Digest root_;
  std::vector<Checkpoint> checkpoints_;
  std::vector<uint64_t> window_ends_;  // in the windows section
  std::vector<LayoutRow> rows_;
  std::vector<Digest> leaves_;
  std::vector<Digest> stored_digests_;
  Decoded decoded_;
  Digest toc_;
  std::vector<Chunk> chunks_;
  std::vector<uint64_t> chunk_ends_;  // in the plain stream
  std::unique_ptr<Store> store_;
};

}  // namespace hydrant::image
