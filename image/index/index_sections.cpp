#include "image/index/index_sections.h"

#include "base/byte_range.h"
#include "base/check.h"

namespace hydrant::image {
namespace {

constexpr uint64_t kBlock = 4096;
constexpr uint64_t kMaxOffset = 1ull << 48;  // of anything; keeps sums of two far from overflow
constexpr uint8_t kMemberStart = 8;          // in a checkpoint's flags, above its bits

tl::unexpected<Error> corrupt(std::string what) { return fail(Code::kCorrupt, "layer index: " + std::move(what)); }

void append_text(Buffer& out, std::string_view text) {
  append_varint(out, text.size());
  append(out, as_bytes(text));
}

std::string take_text(Cursor& in) { return std::string(as_text(in.take_bytes(in.take_varint()))); }

Digest take_digest(Cursor& in) {
  Digest digest;
  Bytes bytes = in.take_bytes(digest.bytes.size());
  std::copy(bytes.begin(), bytes.end(), digest.bytes.begin());
  return digest;
}

// A count of records that take at least `least` bytes each; the cursor goes bad when they cannot be there.
size_t take_count(Cursor& in, size_t least) {
  const uint64_t count = in.take_varint();
  if (count <= in.rest().size() / least) return count;
  in.take_bytes(UINT64_MAX);
  return 0;
}

}  // namespace

Buffer encode_ident(const LayerIdent& ident) {
  Buffer out;
  append(out, ident.digest.bytes);
  append(out, ident.diff_id.bytes);
  append_le<uint64_t>(out, ident.stored_size);
  append_le<uint64_t>(out, ident.stored_end);
  append_le<uint64_t>(out, ident.tar_size);
  append_le<uint64_t>(out, ident.device_size);
  append_le<uint64_t>(out, ident.span);
  append_le<uint32_t>(out, ident.granule);
  append_le<uint32_t>(out, ident.layout_version);
  append_le<uint8_t>(out, static_cast<uint8_t>(ident.compression));
  append_text(out, ident.media_type);
  append_text(out, ident.generator);
  return out;
}

Result<LayerIdent> decode_ident(Bytes raw) {
  Cursor in(raw);
  LayerIdent ident;
  ident.digest = take_digest(in);
  ident.diff_id = take_digest(in);
  ident.stored_size = in.take<uint64_t>();
  ident.stored_end = in.take<uint64_t>();
  ident.tar_size = in.take<uint64_t>();
  ident.device_size = in.take<uint64_t>();
  ident.span = in.take<uint64_t>();
  ident.granule = in.take<uint32_t>();
  ident.layout_version = in.take<uint32_t>();
  const auto compression = in.take<uint8_t>();
  ident.media_type = take_text(in);
  ident.generator = take_text(in);
  if (!in.ok() || !in.rest().empty()) return corrupt("ident has a bad size");
  if (ident.layout_version != kLayoutVersion)
    return fail(Code::kUnsupported, "layer index: layout version " + std::to_string(ident.layout_version));
  if (compression > static_cast<uint8_t>(Compression::kZstd))
    return fail(Code::kUnsupported, "layer index: compression kind " + std::to_string(compression));
  ident.compression = static_cast<Compression>(compression);
  if (ident.stored_size > kMaxOffset || ident.tar_size > kMaxOffset || ident.device_size > kMaxOffset ||
      ident.stored_end > ident.stored_size || ident.device_size % kBlock != 0)
    return corrupt("ident has impossible sizes");
  if (ident.compression == Compression::kNone && ident.tar_size != ident.stored_end)
    return corrupt("ident of a plain stream has two sizes");
  if (!std::has_single_bit(ident.granule) || ident.granule < (64 << 10) || ident.granule > (4 << 20))
    return corrupt("ident has a bad granule");
  return ident;
}

Buffer encode_spans(const std::vector<Checkpoint>& checkpoints, const std::vector<Buffer>& windows) {
  HYDRANT_CHECK(checkpoints.size() == windows.size(), "one window a checkpoint, empty ones included");
  Buffer out;
  append_varint(out, checkpoints.size());
  Checkpoint before;
  for (const auto& at : checkpoints) {
    append_varint(out, at.stored_offset - before.stored_offset);
    before = at;
  }
  before = {};
  for (const auto& at : checkpoints) {
    append_varint(out, at.plain_offset - before.plain_offset);
    before = at;
  }
  for (const auto& at : checkpoints) append_le<uint8_t>(out, at.bits | (at.member_start ? kMemberStart : 0));
  for (const auto& window : windows) append_varint(out, window.size());
  return out;
}

Result<SpanTable> decode_spans(Bytes raw, const LayerIdent& ident, uint64_t windows_size, bool as_stored) {
  Cursor in(raw);
  SpanTable table;
  auto& points = table.checkpoints;
  points.resize(take_count(in, 4));
  uint64_t at = 0;
  for (auto& point : points) {
    const uint64_t step = in.take_varint();
    if (step > kMaxOffset || (step == 0 && &point != &points.front())) return corrupt("spans: stored offsets");
    at += step;
    if (at >= ident.stored_end) return corrupt("spans: stored offset past the data");
    point.stored_offset = at;
  }
  at = 0;
  for (auto& point : points) {
    const uint64_t step = in.take_varint();
    if (step > kMaxOffset || (step == 0 && &point != &points.front())) return corrupt("spans: plain offsets");
    at += step;
    if (at >= ident.tar_size) return corrupt("spans: plain offset past the tar");
    point.plain_offset = at;
  }
  for (auto& point : points) {
    const auto flags = in.take<uint8_t>();
    point.bits = flags & 7;
    point.member_start = flags & kMemberStart;
    if (flags > kMemberStart || (point.member_start && point.bits) ||
        (ident.compression == Compression::kZstd && !point.member_start))
      return corrupt("spans: flags");
  }
  table.window_ends.reserve(points.size());
  at = 0;
  for (const auto& point : points) {
    const uint64_t size = in.take_varint();
    if (size > windows_size - at || (point.member_start && size)) return corrupt("spans: window sizes");
    table.window_ends.push_back(at += size);
  }
  if (!in.ok() || !in.rest().empty() || at != windows_size) return corrupt("spans have a bad size");
  if (as_stored) {
    if (points.empty() || points[0].plain_offset != 0 || points[0].bits)
      return corrupt("spans do not begin at the start");
    if (ident.compression == Compression::kNone)
      for (const auto& point : points)
        if (point.stored_offset != point.plain_offset || !point.member_start) return corrupt("spans of a plain stream");
    return table;
  }
  if (ident.compression == Compression::kNone && !points.empty()) return corrupt("spans of a plain tar");
  if (ident.compression != Compression::kNone && ident.tar_size > 0 && (points.empty() || points[0] != Checkpoint{}))
    return corrupt("spans do not begin at the start");
  return table;
}

Buffer encode_rows(const std::vector<LayoutRow>& rows) {
  Buffer out;
  append_varint(out, rows.size());
  uint64_t end = 0;
  for (const auto& row : rows) {
    append_varint(out, row.device_offset - end);
    end = row.device_offset + row.length;
  }
  end = 0;
  for (const auto& row : rows) {
    append_varint(out, row.tar_offset - end);
    end = row.tar_offset + row.length;
  }
  for (const auto& row : rows) append_varint(out, row.length);
  return out;
}

Result<std::vector<LayoutRow>> decode_rows(Bytes raw, const LayerIdent& ident, uint64_t decoded) {
  Cursor in(raw);
  std::vector<LayoutRow> rows(take_count(in, 3));
  for (auto& row : rows) row.device_offset = in.take_varint();
  for (auto& row : rows) row.tar_offset = in.take_varint();
  for (auto& row : rows) row.length = in.take_varint();
  if (!in.ok() || !in.rest().empty()) return corrupt("rows have a bad size");
  uint64_t device = 0, tar = 0;
  for (auto& row : rows) {  // gaps become offsets
    if (row.device_offset >= 2 * kBlock) return corrupt("rows leave device blocks without data");
    if (row.tar_offset > kMaxOffset || row.length == 0 || row.length > kMaxOffset) return corrupt("rows: bad sizes");
    row.device_offset += device;
    row.tar_offset += tar;
    device = row.device_offset + row.length;
    tar = row.tar_offset + row.length;
    if (device > ident.device_size || tar > ident.tar_size + decoded)
      return corrupt("rows reach past the device or the tar");
  }
  if (ident.device_size - device >= kBlock) return corrupt("rows end before the device");
  return rows;
}

Buffer encode_decoded(const Decoded& decoded) {
  Buffer out;
  append_le<uint64_t>(out, decoded.size);
  append_text(out, decoded.how);
  return out;
}

Result<Decoded> decode_decoded(Bytes raw) {
  Cursor in(raw);
  Decoded decoded;
  decoded.size = in.take<uint64_t>();
  decoded.how = take_text(in);
  if (!in.ok() || !in.rest().empty() || decoded.size == 0 || decoded.size > kMaxOffset)
    return corrupt("what is decoded has a bad size");
  return decoded;
}

Buffer encode_leaves(const std::vector<Digest>& leaves) {
  Buffer out;
  out.reserve(leaves.size() * 32);
  for (const auto& leaf : leaves) append(out, leaf.bytes);
  return out;
}

Result<std::vector<Digest>> decode_leaves(Bytes raw, const LayerIdent& ident) {
  const uint64_t count = (ident.device_size + ident.granule - 1) / ident.granule;
  if (raw.size() != count * 32) return corrupt("leaves: wrong count");
  Cursor in(raw);
  std::vector<Digest> leaves(count);
  for (auto& leaf : leaves) leaf = take_digest(in);
  return leaves;
}

Result<std::vector<Digest>> decode_stored_digests(Bytes raw, size_t spans) {
  if (raw.size() != spans * sizeof(Digest::bytes)) return corrupt("stored digests: wrong count");
  Cursor in(raw);
  std::vector<Digest> digests(spans);
  for (auto& digest : digests) digest = take_digest(in);
  return digests;
}

Buffer encode_chunks(const Digest& toc, const std::vector<Chunk>& chunks) {
  Buffer out;
  append(out, toc.bytes);
  append_varint(out, chunks.size());
  uint64_t before = 0;
  for (const auto& chunk : chunks) {
    append_varint(out, chunk.stored_offset - before);
    before = chunk.stored_offset;
  }
  for (const auto& chunk : chunks) append_varint(out, chunk.inner_offset);
  for (const auto& chunk : chunks) append_varint(out, chunk.length);
  for (const auto& chunk : chunks) append(out, chunk.digest.bytes);
  return out;
}

Result<ChunkTable> decode_chunks(Bytes raw, const LayerIdent& ident) {
  Cursor in(raw);
  ChunkTable table;
  table.toc = take_digest(in);
  auto& chunks = table.chunks;
  chunks.resize(take_count(in, 3 + sizeof(Digest)));
  for (auto& chunk : chunks) chunk.stored_offset = in.take_varint();
  for (auto& chunk : chunks) chunk.inner_offset = in.take_varint();
  for (auto& chunk : chunks) chunk.length = in.take_varint();
  for (auto& chunk : chunks) chunk.digest = take_digest(in);
  if (!in.ok() || !in.rest().empty() || table.toc.is_zero()) return corrupt("chunks have a bad size");
  uint64_t stored = 0, inner_end = 0, plain = 0;
  for (auto& chunk : chunks) {  // differences become offsets
    if (chunk.stored_offset > kMaxOffset) return corrupt("chunks: stored offsets");
    if (chunk.stored_offset > 0) inner_end = 0;  // another member
    chunk.stored_offset += stored;
    stored = chunk.stored_offset;
    if (stored >= ident.stored_end) return corrupt("chunks past the data");
    if (chunk.length == 0 || chunk.length > kMaxChunk || chunk.inner_offset > kMaxChunk ||
        chunk.inner_offset < inner_end)
      return corrupt("chunks: bad sizes");
    inner_end = chunk.inner_offset + chunk.length;
    plain += chunk.length;
    if (plain > ident.tar_size) return corrupt("chunks past the plain stream");
  }
  if (plain != ident.tar_size || ident.compression == Compression::kNone) return corrupt("chunks of another layer");
  return table;
}

}  // namespace hydrant::image
