// Decompresses a zstd stream as it arrives and notes where it can be entered again: at its frames (RFC 8878). Skippable
// frames, which the chunked and seekable variants put their tables in, are stepped over.
#pragma once

#include <functional>
#include <memory>

#include "base/bytes.h"
#include "base/error.h"
#include "image/checkpoint.h"

namespace hydrant::image {

// Frames may ask for this much memory: 128 MiB, what zstd itself takes without being told to take more.
inline constexpr int kMaxZstdWindowLog = 27;

struct ZstdStreamOptions {
  uint64_t span = 512 << 10;  // plain bytes between checkpoints; frames make spans longer
  size_t piece = 512 << 10;   // plain bytes handed out at once
};

struct ZstdSummary {
  uint64_t stored_size = 0;  // bytes fed
  uint64_t stored_end = 0;   // end of the last frame with plain bytes
  uint64_t plain_size = 0;
};

// Checks the frames' own checksums where they have them. Memory: two pieces and the frame's window. Not thread-safe.
class ZstdStream {
 public:
  // Plain bytes in order; the buffer is the receiver's.
  using PlainSink = std::function<Result<>(Buffer&&)>;
  // Checkpoints in order, strictly ascending in both offsets, the first at 0; each once a plain byte follows it.
  using CheckpointSink = std::function<Result<>(const Checkpoint&)>;

  ZstdStream(ZstdStreamOptions options, PlainSink on_plain, CheckpointSink on_checkpoint);
  ~ZstdStream();

  // The next stored bytes, cut anywhere. kCorrupt when they are no zstd, kUnsupported for frames that need a dictionary
  // or a larger window; every later call repeats the error.
  Result<> feed(Bytes stored);
  // The stream is complete: kCorrupt when it stops inside a frame or is empty.
  Result<ZstdSummary> finish();

 private:
  class Stream;
  std::unique_ptr<Stream> stream_;
};

}  // namespace hydrant::image
