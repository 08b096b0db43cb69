// The sections of a layer index file as bytes (docs/formats/layer-index.md). Decoders take bytes from outside: they
// check every count before they allocate for it and every offset before they hand it on.
#pragma once

#include <vector>

#include "base/bytes.h"
#include "base/error.h"
#include "image/index/layer_index.h"

namespace hydrant::image {

enum class SectionId : uint32_t {
  kIdent = 1,
  kSpans = 2,
  kWindows = 3,
  kFiles = 4,
  kRows = 5,
  kLeaves = 6,
  kStoredDigests = 7,  // of format version 3, instead of leaves
  kChunks = 8,         // of format version 2, instead of spans, windows and leaves
  kDecoded = 9,        // of format version 4, besides leaves
};

struct SpanTable {
  std::vector<Checkpoint> checkpoints;
  std::vector<uint64_t> window_ends;  // in the windows section, one a checkpoint
};

Buffer encode_ident(const LayerIdent& ident);
Result<LayerIdent> decode_ident(Bytes raw);

Buffer encode_spans(const std::vector<Checkpoint>& checkpoints, const std::vector<Buffer>& windows);
// `as_stored`: spans that are proven by digests of their stored bytes. Then the first may begin behind a gzip header,
// and what is not compressed has spans, too.
Result<SpanTable> decode_spans(Bytes raw, const LayerIdent& ident, uint64_t windows_size, bool as_stored = false);

Buffer encode_rows(const std::vector<LayoutRow>& rows);
// `decoded`: bytes behind the tar that rows may reach into.
Result<std::vector<LayoutRow>> decode_rows(Bytes raw, const LayerIdent& ident, uint64_t decoded = 0);

Buffer encode_decoded(const Decoded& decoded);
Result<Decoded> decode_decoded(Bytes raw);

// Also of stored digests.
Buffer encode_leaves(const std::vector<Digest>& leaves);
Result<std::vector<Digest>> decode_leaves(Bytes raw, const LayerIdent& ident);
Result<std::vector<Digest>> decode_stored_digests(Bytes raw, size_t spans);

struct ChunkTable {
  Digest toc;
  std::vector<Chunk> chunks;
};
Buffer encode_chunks(const Digest& toc, const std::vector<Chunk>& chunks);
Result<ChunkTable> decode_chunks(Bytes raw, const LayerIdent& ident);

// Every data piece of `files` must stand in a row of its own.
Buffer encode_files(const FileTable& files, const std::vector<LayoutRow>& rows);
Result<FileTable> decode_files(Bytes raw, const std::vector<LayoutRow>& rows);

}  // namespace hydrant::image
