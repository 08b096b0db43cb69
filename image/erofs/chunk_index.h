// The chunk index of the EROFS image layer specification (application/vnd.erofs.chunk-index.v1): how to read a stored
// EROFS image in the middle.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "base/byte_range.h"
#include "base/bytes.h"
#include "base/digest.h"
#include "base/error.h"

namespace hydrant::image {

inline constexpr std::string_view kErofsChunkIndexType = "application/vnd.erofs.chunk-index.v1";

struct ErofsChunk {
  ByteRange stored;  // in the blob: a zstd frame, or the image's own bytes
  ByteRange plain;   // in the image
  Digest digest;     // SHA-256 of the stored bytes
  bool operator==(const ErofsChunk&) const = default;
};

struct ErofsChunkIndex {
  bool zstd = false;
  uint64_t image_size = 0;
  std::vector<ErofsChunk> chunks;  // ascending without gaps in the image; they end with it
};

// `stored_end`: of the blob's data, where the index begins or the blob ends. kCorrupt: contradicts itself or leaves the
// data. kUnsupported: without SHA-256 of each chunk, which nothing else would prove; chunks over kMaxLazySpan.
Result<ErofsChunkIndex> decode_erofs_chunk_index(Bytes payload, uint64_t stored_end);

// Where a layer's index is, if its manifest binds one.
struct ErofsChunkIndexPlace {
  ByteRange stored;         // of the payload in the blob
  uint64_t stored_end = 0;  // of the data: with zstd, the start of the frame that the payload is in
  Digest digest;            // of the payload
  bool apart = false;       // the payload is a blob of its own, named by its digest
  bool operator==(const ErofsChunkIndexPlace&) const = default;
};
// By the descriptor's annotations. Nothing where they do not bind an index by its digest, or make no sense.
std::optional<ErofsChunkIndexPlace> erofs_chunk_index_place(const std::map<std::string, std::string>& annotations,
                                                            bool zstd, uint64_t blob_size);

}  // namespace hydrant::image
