#include "image/index/erofs_layer.h"

#include <algorithm>
#include <list>

#include "base/byte_range.h"
#include "image/erofs/reader.h"
#include "image/index/erofs_rows.h"
#include "image/tar/tar_path.h"
#include "image/zstd/zstd_span_decoder.h"

namespace hydrant::image {
namespace {

constexpr uint64_t kHeld = 64 << 20;  // plain bytes of chunks that may be asked for again

// The image, as far as its chunks have been needed.
class ChunkReader {
 public:
  ChunkReader(const ErofsChunkIndex& index, const ReadStored& read) : index_(index), read_(read) {}

  Result<> read(uint64_t offset, MutableBytes out) {
    while (!out.empty()) {
      HYDRANT_TRY(const Held* held, chunk_at(offset));
      const uint64_t skip = offset - held->plain.begin;
      const size_t size = std::min<uint64_t>(out.size(), held->bytes.size() - skip);
      std::copy_n(held->bytes.begin() + ptrdiff_t(skip), size, out.begin());
      out = out.subspan(size);
      offset += size;
    }
    return {};
  }

 private:
  struct Held {
    ByteRange plain;
    Buffer bytes;
  };

  Result<const Held*> chunk_at(uint64_t offset) {
    auto held = std::find_if(held_.begin(), held_.end(), [&](const Held& each) { return each.plain.contains(offset); });
    if (held != held_.end()) {
      held_.splice(held_.begin(), held_, held);
      return &held_.front();
    }
    const auto chunk = std::prev(std::upper_bound(index_.chunks.begin(), index_.chunks.end(), offset,
                                                  [](uint64_t at, const ErofsChunk& c) { return at < c.plain.begin; }));
    HYDRANT_TRY(Buffer stored, read_(chunk->stored));
    if (stored.size() != chunk->stored.size() || sha256(stored) != chunk->digest)
      return fail(Code::kCorrupt, "EROFS layer: the chunk at stored byte " + std::to_string(chunk->stored.begin) +
                                      " does not match its digest");
    Held fresh{chunk->plain, index_.zstd ? Buffer() : std::move(stored)};
    if (index_.zstd) {
      ZstdSpanDecoder decoder(Span{{}, stored.size(), chunk->plain.size()});
      HYDRANT_TRY_VOID(decoder.feed(stored, [&](Bytes piece) { return append(fresh.bytes, piece), Result<>(); }));
      HYDRANT_TRY_VOID(decoder.finish());
    }
    size_ += fresh.bytes.size();
    for (; size_ > kHeld && !held_.empty(); held_.pop_back()) size_ -= held_.back().bytes.size();
    held_.push_front(std::move(fresh));
    return &held_.front();
  }

  const ErofsChunkIndex& index_;
  const ReadStored& read_;
  std::list<Held> held_;  // used last first
  uint64_t size_ = 0;
};

}  // namespace

Result<BuiltLayer> build_erofs_index(const ErofsChunkIndex& chunks, const LayerExpectation& expected,
                                     const ReadStored& read) {
  ChunkReader reader(chunks, read);
  HYDRANT_TRY(auto table, read_erofs(chunks.image_size,
                                     [&](uint64_t offset, MutableBytes out) { return reader.read(offset, out); }));
  if (!table.packed.empty())
    return fail(Code::kUnsupported, "EROFS image: " + printable(table.files[table.packed.front().file].path) +
                                        " is compressed inside the image (" + table.algorithms() + ")");
  LayerIndexContent content;
  HYDRANT_TRY(content.rows, place_erofs(table));
  content.files = std::move(table.files);
  for (const auto& chunk : chunks.chunks) {
    content.checkpoints.push_back({chunk.stored.begin, chunk.plain.begin, 0, true});
    content.windows.emplace_back();
    content.stored_digests.push_back(chunk.digest);
  }
  auto& ident = content.ident;
  ident.digest = expected.digest;
  ident.stored_size = expected.size.value_or(chunks.chunks.back().stored.end);
  ident.media_type = expected.media_type;
  ident.tar_size = chunks.image_size;
  ident.compression = chunks.zstd ? Compression::kZstd : Compression::kNone;
  ident.stored_end = chunks.chunks.back().stored.end;
  ident.device_size =
      content.rows.empty() ? 0 : round_up(content.rows.back().device_offset + content.rows.back().length, 4096);
  ident.granule = LayerBuilderOptions{}.granule;
  ident.generator = "hydrant, of a chunk index";
  return BuiltLayer{.index = encode_layer_index(content),
                    .ident = ident,
                    .merkle_root = {},
                    .files = content.files.size(),
                    .lazy = is_lazy(widest_span(content.checkpoints, ident.stored_end))};
}

}  // namespace hydrant::image
