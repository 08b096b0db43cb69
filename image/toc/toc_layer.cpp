#include "image/toc/toc_layer.h"

#include <algorithm>
#include <optional>

#include "image/gzip/inflater.h"
#include "image/tar/tar_reader.h"
#include "image/toc/toc_table.h"
#include "image/zstd/zstd_span_decoder.h"

namespace hydrant::image {
namespace {

constexpr char kGenerator[] = "hydrant";
constexpr std::string_view kTocName = "stargz.index.json";

tl::unexpected<Error> corrupt(std::string what) {
  return fail(Code::kCorrupt, "table of contents: " + std::move(what));
}

// Takes the one file of the archive that an eStargz carries its table in.
class TocFile final : public TarVisitor {
 public:
  Result<> on_entry(FileEntry&& entry, TarData&&) override {
    wanted_ = entry.path == kTocName && !found;
    found |= wanted_;
    if (wanted_ && entry.size > kMaxTocPlain)
      return fail(Code::kUnsupported, "table of contents of " + std::to_string(entry.size >> 20) + " MiB");
    return {};
  }
  Result<> on_data(uint64_t, Bytes bytes) override {
    if (wanted_) append(json, bytes);
    return {};
  }
  Result<> on_entry_end() override { return {}; }

  Buffer json;
  bool found = false;

 private:
  bool wanted_ = false;
};

Result<Buffer> unpack_estargz(Bytes stored) {
  TocFile file;
  TarReader reader(file);
  uint64_t plain = 0;
  Inflater inflater(
      {.span = 16 << 20},
      [&](Buffer&& piece) -> Result<> {
        plain += piece.size();
        if (plain > kMaxTocPlain + (1 << 20)) return fail(Code::kUnsupported, "table of contents is too large");
        return reader.feed(piece);
      },
      [](CheckpointData&&) { return Result<>(); });
  HYDRANT_TRY_VOID(inflater.feed(stored));
  HYDRANT_TRY_VOID(inflater.finish());
  HYDRANT_TRY_VOID(reader.finish());
  if (!file.found) return corrupt("is not where the footer says");
  return std::move(file.json);
}

Result<Buffer> unpack_zstd(Bytes stored, uint64_t plain_size) {
  if (plain_size > kMaxTocPlain)
    return fail(Code::kUnsupported, "table of contents of " + std::to_string(plain_size >> 20) + " MiB");
  Buffer json;
  Span span;
  span.stored_end = stored.size();
  span.plain_end = plain_size;
  ZstdSpanDecoder decoder(span);
  HYDRANT_TRY_VOID(decoder.feed(stored, [&](Bytes piece) { return append(json, piece), Result<>(); }));
  HYDRANT_TRY_VOID(decoder.finish());
  return json;
}

Result<Buffer> prove(const TocReference& toc, const TocPlace& place, Bytes stored) {
  const auto matches = [&](Bytes bytes) -> Result<> {
    if (sha256(bytes) != toc.digest) return corrupt("does not have the digest that the manifest tells");
    return {};
  };
  if (toc.kind == TocKind::kZstdChunked) {
    HYDRANT_TRY_VOID(matches(stored));
    return unpack_zstd(stored, place.plain_size);
  }
  HYDRANT_TRY(auto json, unpack_estargz(stored));
  HYDRANT_TRY_VOID(matches(json));
  return json;
}

}  // namespace

// A table takes some 100 bytes a file, packed; a small layer is mostly small files.
ByteRange first_toc_read(uint64_t blob_size) {
  constexpr uint64_t kLeast = 64 << 10, kMost = 1 << 20;
  return {blob_size - std::min(blob_size, std::clamp(blob_size / 32, kLeast, kMost)), blob_size};
}

Result<BuiltLayer> build_toc_index(const TocReference& toc, const TocPlace& place, Bytes stored,
                                   const LayerExpectation& expected) {
  if (stored.size() != place.stored.size()) return corrupt("was not fetched whole");
  HYDRANT_TRY(auto json, prove(toc, place, stored));
  TocTable table;
  HYDRANT_TRY_VOID(read_toc_json(as_text(json), [&](TocEntry&& entry) { return table.add(std::move(entry)); }));
  json = {};
  LayerIdent ident;
  ident.digest = expected.digest;
  ident.stored_size = expected.size.value_or(place.stored.end);
  ident.media_type = expected.media_type;
  ident.compression = toc.kind == TocKind::kEstargz ? Compression::kGzip : Compression::kZstd;
  ident.stored_end = place.stored.begin;
  ident.generator = kGenerator;
  HYDRANT_TRY(auto content, table.finish(std::move(ident), toc.digest));
  const uint64_t widest = widest_span(content.chunks, content.ident.stored_end);
  if (!is_lazy(widest))
    return fail(Code::kUnsupported,
                "table of contents: data can be entered only every " + std::to_string(widest >> 20) + " MiB");
  return BuiltLayer{
      .index = encode_layer_index(content), .ident = content.ident, .merkle_root = {}, .files = content.files.size()};
}

}  // namespace hydrant::image
