// Stored bytes under an index by chunks that need not fit them: nothing unproven comes out. The digests are those of
// the zeros that a chunk may hold, so that some do fit.
#include <cstdlib>

#include "image/index/chunk_layout.h"
#include "image/index/index_sections.h"

using namespace hydrant;
using namespace hydrant::image;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  Cursor in(std::as_bytes(std::span(data, size)));
  LayerIndexContent content;
  content.toc = sha256(as_bytes("table"));
  auto& ident = content.ident;
  ident.compression = in.take<uint8_t>() % 2 ? Compression::kGzip : Compression::kZstd;
  ident.granule = 64 << 10;
  const size_t count = 1 + in.take<uint8_t>() % 8, step = 1 + in.take<uint8_t>();
  uint64_t stored = 0, inner = 0;
  for (size_t i = 0; i < count; ++i) {
    const auto gap = in.take<uint8_t>(), skip = in.take<uint8_t>();
    const uint64_t length = 1 + in.take<uint16_t>();
    inner = gap ? skip : inner + skip;
    stored += gap;
    content.chunks.push_back({stored, inner, length, sha256(Buffer(length))});
    inner += length;
    content.rows.push_back({round_up(ident.device_size, 4096), ident.tar_size, length});
    ident.tar_size += length;
    ident.device_size = round_up(ident.device_size, 4096) + length;
  }
  ident.device_size = round_up(ident.device_size, 4096);
  const Bytes blob = in.rest();
  ident.stored_size = ident.stored_end = std::max<uint64_t>(blob.size(), stored + 1);
  auto index = LayerIndex::load(encode_layer_index(content), {});
  if (!index) std::abort();
  const ChunkLayout layout(*index);
  const Fill fill = layout.plan({0, 1 + size % layout.device_size()});
  uint64_t end = fill.device.begin;
  auto decoder = layout.decoder(fill, [&](uint64_t offset, Bytes bytes) -> Result<> {
    if (offset != end || bytes.size() > fill.device.end - end) std::abort();
    for (std::byte byte : bytes)
      if (byte != std::byte{0}) std::abort();
    end += bytes.size();
    return {};
  });
  for (uint64_t at = fill.stored.begin; at < std::min<uint64_t>(fill.stored.end, blob.size()); at += step)
    if (!decoder->feed(
            blob.subspan(at, std::min<uint64_t>(step, std::min<uint64_t>(fill.stored.end, blob.size()) - at))))
      return 0;
  if (decoder->finish() && end != fill.device.end) std::abort();
  return 0;
}
