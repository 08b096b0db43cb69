// Decodes one span of a gzip stream from its checkpoint.
#pragma once

#include <memory>

#include "base/bytes.h"
#include "base/error.h"
#include "image/gzip/checkpoint.h"

namespace hydrant::image {

// Reads the given bytes and no others, yields the span's plain length and never more. What it yields is as good as the
// stored bytes: callers check their own digests. Not thread-safe; several decoders are independent.
class SpanDecoder {
 public:
  enum class Engine {
    kAuto,  // ISA-L where its self-test passes on this machine, else zlib
    kIsal,
    kZlib,
  };

  // `stored` is span.stored() of the blob and must outlive the decoder; `window` is copied. Offsets need not be
  // trusted: what does not fit ends in kCorrupt.
  SpanDecoder(const Span& span, Bytes stored, Bytes window, Engine engine = Engine::kAuto);
  ~SpanDecoder();

  // The next plain bytes, at most 256 KiB, valid until the next call; empty once span.plain() was yielded. kCorrupt
  // when the stored bytes end or fail before that.
  Result<Bytes> next();

  // Whether kAuto means ISA-L here: decided once a process, by resuming a known stream at every bit position.
  static bool isal_works();

 private:
  class Deflate;
  class IsalDeflate;
  class ZlibDeflate;
  Result<> enter_member();

  uint64_t left_;  // plain bytes still to yield
  Bytes rest_;     // stored bytes not yet given to the engine
  bool in_header_;
  std::unique_ptr<Deflate> deflate_;
  Buffer piece_;
};

}  // namespace hydrant::image
