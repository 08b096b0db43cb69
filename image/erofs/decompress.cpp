#include "image/erofs/decompress.h"

#include <lz4.h>
#include <lzma.h>
#include <zlib.h>
#include <zstd.h>

#include <algorithm>
#include <memory>

#include "base/check.h"
#include "image/zstd/zstd_context.h"

namespace hydrant::image {
namespace {

using proto::erofs::Algorithm;

tl::unexpected<Error> corrupt(const char* algorithm) {
  return fail(Code::kCorrupt, std::string("a cluster is no ") + algorithm + " of its length");
}

// Both sizes are bounded by kMaxErofsCluster and kMaxErofsExtent.
Result<> lz4(Bytes stored, MutableBytes out, bool whole) {
  const auto* from = reinterpret_cast<const char*>(stored.data());
  auto* to = reinterpret_cast<char*>(out.data());
  const int from_size = int(stored.size()), to_size = int(out.size());
  const int made = whole ? LZ4_decompress_safe(from, to, from_size, to_size)
                         : LZ4_decompress_safe_partial(from, to, from_size, to_size, to_size);
  return made == to_size ? Result<>() : corrupt("LZ4");
}

Result<> deflate(Bytes stored, MutableBytes out) {
  z_stream stream{};
  HYDRANT_CHECK(inflateInit2(&stream, -MAX_WBITS) == Z_OK, "zlib has no memory for its state");
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<std::byte*>(stored.data()));
  stream.avail_in = uInt(stored.size());
  stream.next_out = reinterpret_cast<Bytef*>(out.data());
  stream.avail_out = uInt(out.size());
  const int status = ::inflate(&stream, Z_SYNC_FLUSH);
  inflateEnd(&stream);
  return (status == Z_OK || status == Z_STREAM_END) && stream.avail_out == 0 ? Result<>() : corrupt("deflate");
}

Result<> zstd(Bytes stored, MutableBytes out) {
  const ZstdContext context = make_zstd_context();
  // No window is larger than what an extent holds; a frame that asks for one is not given the memory.
  ZSTD_DCtx_setParameter(context.get(), ZSTD_d_windowLogMax, 24);
  ZSTD_inBuffer from{stored.data(), stored.size(), 0};
  ZSTD_outBuffer to{out.data(), out.size(), 0};
  while (to.pos < to.size) {
    const size_t before = from.pos + to.pos;
    const size_t left = ZSTD_decompressStream(context.get(), &to, &from);
    if (ZSTD_isError(left) || (left == 0 && to.pos < to.size) || from.pos + to.pos == before) return corrupt("zstd");
  }
  return {};
}

// MicroLZMA: a raw LZMA stream whose first byte, always 0, is replaced by the complement of its properties.
Result<> micro_lzma(Bytes stored, MutableBytes out, bool whole) {
  lzma_stream stream = LZMA_STREAM_INIT;
  const auto dictionary = uint32_t(std::max<size_t>(out.size(), LZMA_DICT_SIZE_MIN));
  if (lzma_microlzma_decoder(&stream, stored.size(), out.size(), whole, dictionary) != LZMA_OK)
    return fail({.code = Code::kIo, .what = "liblzma has no memory for its state", .retry = true});
  stream.next_in = reinterpret_cast<const uint8_t*>(stored.data());
  stream.avail_in = stored.size();
  stream.next_out = reinterpret_cast<uint8_t*>(out.data());
  stream.avail_out = out.size();
  const lzma_ret status = lzma_code(&stream, LZMA_RUN);
  const bool full = stream.avail_out == 0;
  lzma_end(&stream);
  return (status == LZMA_OK || status == LZMA_STREAM_END) && full ? Result<>() : corrupt("LZMA");
}

}  // namespace

Result<> decompress(Algorithm algorithm, Bytes stored, MutableBytes out, bool whole) {
  switch (algorithm) {
    case Algorithm::kLz4: return lz4(stored, out, whole);
    case Algorithm::kLzma: return micro_lzma(stored, out, whole);
    case Algorithm::kDeflate: return deflate(stored, out);
    case Algorithm::kZstd: return zstd(stored, out);
  }
  return fail(Code::kUnsupported, "an algorithm that is not known here");
}

}  // namespace hydrant::image
