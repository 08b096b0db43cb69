#include "image/erofs/chunk_index.h"

#include <algorithm>

#include "image/index/layer_index.h"
#include "image/tar/tar_pax.h"
#include "image/toc/toc_reference.h"

namespace hydrant::image {
namespace {

constexpr uint32_t kMagic = 0x67ECE4CD;
constexpr uint8_t kVersion = 1, kNone = 0, kZstd = 1, kSha2 = 1, kSha256Size = 32;
constexpr size_t kReserved = 10;
constexpr uint64_t kSkippableHeader = 8;
constexpr uint64_t kMaxSize = 1ull << 48;

tl::unexpected<Error> corrupt(const char* what) {
  return fail(Code::kCorrupt, std::string("EROFS chunk index: ") + what);
}
tl::unexpected<Error> unsupported(const char* what) {
  return fail(Code::kUnsupported, std::string("EROFS chunk index: ") + what);
}

}  // namespace

Result<ErofsChunkIndex> decode_erofs_chunk_index(Bytes payload, uint64_t stored_end) {
  Cursor in(payload);
  const auto magic = in.take<uint32_t>();
  const auto version = in.take<uint8_t>(), compression = in.take<uint8_t>();
  const auto flags = in.take<uint16_t>();
  ErofsChunkIndex index;
  index.image_size = in.take<uint64_t>();
  const auto count = in.take<uint32_t>();
  const auto hash = in.take<uint8_t>(), hash_size = in.take<uint8_t>();
  const Bytes reserved = in.take_bytes(kReserved);
  if (!in.ok() || magic != kMagic) return corrupt("is none");
  if (version != kVersion || flags != 0 || compression > kZstd) return unsupported("of a kind that is not known here");
  for (std::byte each : reserved)
    if (each != std::byte{0}) return corrupt("its header is not zero where it should be");
  if (hash != kSha2 || hash_size != kSha256Size) return unsupported("has no SHA-256 of its chunks");
  if (in.rest().size() != uint64_t{count} * (16 + kSha256Size)) return corrupt("has not as many chunks as it says");
  if (index.image_size > kMaxSize || stored_end > kMaxSize) return corrupt("impossible sizes");
  index.zstd = compression == kZstd;
  for (uint32_t i = 0; i < count; ++i) {
    ErofsChunk chunk;
    chunk.stored.begin = in.take<uint64_t>();
    chunk.plain.begin = in.take<uint64_t>();
    std::ranges::copy(in.take_bytes(kSha256Size), chunk.digest.bytes.begin());
    const bool first = index.chunks.empty();
    if (first ? chunk.plain.begin != 0
              : chunk.plain.begin <= index.chunks.back().plain.begin ||
                    chunk.stored.begin <= index.chunks.back().stored.begin)
      return corrupt("its chunks are out of order");
    if (chunk.plain.begin >= index.image_size || chunk.stored.begin >= stored_end)
      return corrupt("a chunk lies behind the image");
    if (!index.zstd && chunk.stored.begin != chunk.plain.begin)
      return unsupported("its chunks do not stand where the image has them");
    if (!first) {
      index.chunks.back().plain.end = chunk.plain.begin;
      index.chunks.back().stored.end = chunk.stored.begin;
    }
    index.chunks.push_back(chunk);
  }
  if (index.chunks.empty()) return unsupported("has no chunks");
  index.chunks.back().plain.end = index.image_size;
  index.chunks.back().stored.end = index.zstd ? stored_end : index.image_size;
  if (index.chunks.back().stored.end > stored_end) return corrupt("a chunk lies behind the data");
  for (const auto& chunk : index.chunks)
    if (chunk.stored.size() > kMaxLazySpan || chunk.plain.size() > kMaxChunk)
      return unsupported("has chunks of more than 32 MiB");
  return index;
}

std::optional<ErofsChunkIndexPlace> erofs_chunk_index_place(const std::map<std::string, std::string>& annotations,
                                                            bool zstd, uint64_t blob_size) {
  auto value = [&](const char* name) {
    auto found = annotations.find(name);
    return found == annotations.end() ? std::string() : found->second;
  };
  const std::string range = value("org.erofs.chunk-index.range"), type = value("org.erofs.chunk-index.mediaType");
  ErofsChunkIndexPlace place;
  place.digest = toc_digest(value("org.erofs.chunk-index.digest"));
  if (range.empty() || place.digest.is_zero() || (!type.empty() && type != kErofsChunkIndexType)) return std::nullopt;
  const size_t colon = range.find(':');
  const auto begin = parse_decimal(std::string_view(range).substr(0, colon));
  const auto end = colon == range.npos ? blob_size : parse_decimal(std::string_view(range).substr(colon + 1));
  if (!begin || !end || *end > blob_size || *begin > *end) return std::nullopt;
  place.stored_end = *begin;
  place.stored = {*begin + (zstd ? kSkippableHeader : 0), *end};
  if (place.stored.begin > place.stored.end) return std::nullopt;
  return place;
}

}  // namespace hydrant::image
