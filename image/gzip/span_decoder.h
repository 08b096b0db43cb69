// Decodes a stretch of a gzip stream from a checkpoint on, as its stored bytes arrive.
#pragma once

#include <functional>
#include <memory>

#include "base/bytes.h"
#include "base/error.h"
#include "image/checkpoint.h"
#include "image/gzip/member_header.h"

namespace hydrant::image {

// Yields the span's plain length and never more. What it yields is as good as the stored bytes: callers check their own
// digests. A span may be several neighbouring ones made one: only its start needs a checkpoint. Not thread-safe;
// several decoders are independent.
class SpanDecoder {
 public:
  enum class Engine {
    kAuto,  // ISA-L where its self-test passes on this machine, else zlib
    kIsal,
    kZlib,
  };
  // Takes plain bytes in order, at most 512 KiB, valid during the call. Its error ends the feed.
  using Sink = std::function<Result<>(Bytes)>;

  // `window` is copied. Offsets need not be trusted: what does not fit ends in kCorrupt.
  SpanDecoder(const Span& span, Bytes window, Engine engine = Engine::kAuto);
  ~SpanDecoder();

  // The next bytes of span.stored(), cut anywhere. What stands behind the span's plain end is not looked at. kCorrupt
  // when the bytes are no gzip; not to be fed after an error.
  Result<> feed(Bytes stored, const Sink& sink);
  // kCorrupt when the stored bytes have ended before the span did.
  Result<> finish() const;

  // Whether kAuto means ISA-L here: decided once a process, by resuming a known stream at every bit position.
  static bool isal_works();

 private:
  class Deflate;
  class IsalDeflate;
  class ZlibDeflate;
  enum class State { kStart, kHeader, kBlocks, kTrailer };

  Result<> start(Bytes& stored);
  Result<> inflate(Bytes& stored, const Sink& sink);

  uint64_t left_;  // plain bytes still to yield
  State state_;
  const uint8_t bits_;  // of the byte before the first block, kStart only
  Buffer window_;       // kStart only
  MemberHeader header_;
  size_t trailer_left_ = 0;
  std::unique_ptr<Deflate> deflate_;
  const size_t piece_size_;
  const std::unique_ptr<std::byte[]> piece_;
};

}  // namespace hydrant::image
