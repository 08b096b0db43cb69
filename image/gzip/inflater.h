// Inflates a gzip stream as it arrives and notes where it can be entered again. Formats: RFC 1951 (deflate), RFC 1952
// (gzip); multi-member streams, stored blocks, optional header fields and trailing zero padding included.
#pragma once

#include <functional>
#include <memory>

#include "base/bytes.h"
#include "base/error.h"
#include "image/checkpoint.h"

namespace hydrant::image {

// A checkpoint with what makes it usable and small.
struct CheckpointData {
  Checkpoint at;
  Buffer window;  // empty at a member's start
  // The stored bytes that follow (one more in front when at.bits > 0) and the plain bytes they yield, at least as far
  // as the window can be referred to; both empty when the stream did not show that within bounds. See trim_window.
  Buffer probe_stored;
  Buffer probe_plain;
};

struct InflaterOptions {
  uint64_t span = 512 << 10;  // plain bytes between checkpoints, 64 KiB .. 16 MiB; blocks make spans longer
  size_t piece = 512 << 10;   // plain bytes handed out at once
};

struct InflaterSummary {
  uint64_t stored_size = 0;  // bytes fed
  uint64_t stored_end = 0;   // end of the last member
  uint64_t plain_size = 0;
  uint64_t members = 0;
  bool clean_tail = true;  // what follows the last member, if anything, is zeros
};

// Each member's CRC32 and length are checked as it ends. Memory: two pieces and some 200 KiB. Not thread-safe.
class Inflater {
 public:
  // Plain bytes in order; the buffer is the receiver's.
  using PlainSink = std::function<Result<>(Buffer&&)>;
  // Checkpoints in order, strictly ascending in both offsets, the first at 0. Comes after the checkpoint was passed.
  using CheckpointSink = std::function<Result<>(CheckpointData&&)>;

  Inflater(InflaterOptions options, PlainSink on_plain, CheckpointSink on_checkpoint);
  ~Inflater();

  // The next stored bytes, cut anywhere. kCorrupt when they are no gzip; every later call repeats the error.
  Result<> feed(Bytes stored);
  // The stream is complete: kCorrupt when it stops inside a member or has none.
  Result<InflaterSummary> finish();

 private:
  class Stream;
  std::unique_ptr<Stream> stream_;
};

}  // namespace hydrant::image
