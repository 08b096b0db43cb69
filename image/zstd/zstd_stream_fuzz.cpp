// The zstd reader against the bytes of a registry: the first byte says how they are cut.
#include "image/zstd/zstd_stream.h"

using namespace hydrant;
using namespace hydrant::image;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const size_t step = 1 + data[0];
  const Bytes stored = std::as_bytes(std::span(data, size)).subspan(1);
  uint64_t plain = 0;
  Checkpoint before;
  ZstdStream stream(
      {.span = 1 << 10, .piece = 16 << 10},
      [&](Buffer&& piece) -> Result<> {
        plain += piece.size();
        return plain > (8 << 20) ? Result<>(fail(Code::kUnsupported, "long enough")) : Result<>();
      },
      [&](const Checkpoint& at) -> Result<> {
        if (!(at == Checkpoint{}) &&
            (at.stored_offset <= before.stored_offset || at.plain_offset <= before.plain_offset))
          __builtin_trap();
        before = at;
        return {};
      });
  for (size_t at = 0; at < stored.size(); at += step)
    if (!stream.feed(stored.subspan(at, std::min(step, stored.size() - at)))) return 0;
  (void)stream.finish();
  return 0;
}
