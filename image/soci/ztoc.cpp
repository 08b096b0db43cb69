#include "image/soci/ztoc.h"

#include <algorithm>
#include <tuple>

#include "image/index/device_writer.h"
#include "image/index/zstd_frame.h"
#include "image/soci/flatbuffer.h"
#include "image/tar/tar_path.h"
#include "image/tar/tar_reader.h"
#include "image/toc/toc_reference.h"
#include "image/toc/toc_table.h"

namespace hydrant::image {
namespace {

const uint32_t kGranule = LayerBuilderOptions{}.granule;
constexpr int kWindowLevel = 3;
constexpr size_t kPackedCheckpoint = 8 + 8 + 1 + kWindowSize;  // in, out, bits, window
constexpr uint64_t kFirstMemberHeader = 10;                    // where version 1 takes the data to begin
constexpr uint64_t kMaxSize = 1ull << 48;
constexpr size_t kMaxSpans = 1 << 20;
// Pax records that say more than the schema's fields do.
constexpr std::string_view kXattr = "SCHILY.xattr.", kLibarchiveXattr = "LIBARCHIVE.xattr.", kSparse = "GNU.sparse.";

// Fields of the schema's tables, in its order.
namespace field {
enum Ztoc : unsigned { kVersion, kGenerator, kStoredSize, kPlainSize, kToc, kCompression };
enum Toc : unsigned { kFiles };
enum Compression : unsigned { kAlgorithm, kMaxSpan, kDigests, kCheckpoints };
enum File : unsigned {
  kName,
  kType,
  kOffset,
  kSize,
  kLink,
  kMode,
  kUid,
  kGid,
  kUserName,
  kGroupName,
  kTime,
  kMajor,
  kMinor,
  kRecords
};
enum Record : unsigned { kKey, kValue };
}  // namespace field
constexpr int8_t kGzip = 1, kUncompressed = 2;

tl::unexpected<Error> corrupt(std::string what) { return fail(Code::kCorrupt, "zTOC: " + std::move(what)); }
tl::unexpected<Error> unsupported(std::string what) { return fail(Code::kUnsupported, "zTOC: " + std::move(what)); }

// A count of the schema's, which has them signed.
Result<uint64_t> size_of(int64_t value, const char* what) {
  if (value < 0 || uint64_t(value) > kMaxSize) return corrupt(std::string(what) + " is " + std::to_string(value));
  return uint64_t(value);
}

// "zinfo", version 2, or 1, which lacks the first checkpoint.
Result<> read_checkpoints(Bytes raw, LayerIndexContent& content) {
  Cursor in(raw);
  const auto count = in.take<uint32_t>();
  HYDRANT_TRY(content.ident.span, size_of(in.take<int64_t>(), "the span size"));
  if (!in.ok() || count == 0 || count > kMaxSpans) return corrupt("a bad number of checkpoints");
  const bool first_is_there = in.rest().size() == count * kPackedCheckpoint;
  if (!first_is_there && in.rest().size() != (count - 1) * kPackedCheckpoint)
    return corrupt("checkpoints are cut short");
  for (uint32_t i = 0; i < count; ++i) {
    Checkpoint at{kFirstMemberHeader, 0, 0, false};
    Bytes window;
    if (i > 0 || first_is_there) {
      at.stored_offset = in.take<uint64_t>();
      at.plain_offset = in.take<uint64_t>();
      at.bits = in.take<uint8_t>();
      window = in.take_bytes(kWindowSize);
    }
    if (at.bits > 7) return corrupt("a checkpoint has bad bits");
    if (i == 0 && (at.plain_offset != 0 || at.bits != 0)) return corrupt("the first span does not begin at the start");
    if (i > 0 && (at.stored_offset <= content.checkpoints.back().stored_offset ||
                  at.plain_offset <= content.checkpoints.back().plain_offset))
      return corrupt("checkpoints are out of order");
    // What precedes the stream's start is no part of it.
    window = window.subspan(window.size() - std::min<uint64_t>(window.size(), at.plain_offset));
    content.windows.push_back(window.empty() ? Buffer() : zstd_compress(window, kWindowLevel));
    content.checkpoints.push_back(at);
  }
  return {};
}

// Of a plain tar: version, span size, size.
Result<> read_plain_spans(Bytes raw, LayerIndexContent& content) {
  Cursor in(raw);
  in.take<uint32_t>();
  HYDRANT_TRY(const uint64_t span, size_of(in.take<int64_t>(), "the span size"));
  HYDRANT_TRY(const uint64_t size, size_of(in.take<int64_t>(), "the tar's size"));
  if (!in.ok() || !in.rest().empty() || span == 0 || size != content.ident.tar_size || size / span > kMaxSpans)
    return corrupt("bad spans of a plain tar");
  content.ident.span = span;
  for (uint64_t at = 0; at < size; at += span) {
    content.checkpoints.push_back({at, at, 0, true});
    content.windows.emplace_back();
  }
  return {};
}

Result<> read_spans(const FlatTable& info, LayerIndexContent& content) {
  auto& ident = content.ident;
  const auto algorithm = info.number<int8_t>(field::kAlgorithm, kGzip);
  if (algorithm != kGzip && algorithm != kUncompressed)
    return unsupported("compression " + std::to_string(algorithm) + " is not known here");
  ident.compression = algorithm == kGzip ? Compression::kGzip : Compression::kNone;
  if (algorithm == kUncompressed && ident.tar_size != ident.stored_size) return corrupt("a plain tar has two sizes");
  const Bytes checkpoints = info.bytes_of(info.vector(field::kCheckpoints, 1));
  HYDRANT_TRY_VOID(algorithm == kGzip ? read_checkpoints(checkpoints, content)
                                      : read_plain_spans(checkpoints, content));
  const auto digests = info.vector(field::kDigests, 4);
  if (content.checkpoints.empty() || digests.size != content.checkpoints.size() ||
      info.number<int32_t>(field::kMaxSpan) != int32_t(digests.size - 1))
    return corrupt("has not one digest a span");
  for (uint32_t i = 0; i < digests.size; ++i) {
    content.stored_digests.push_back(toc_digest(std::string(info.text_of(digests, i))));
    if (content.stored_digests.back().is_zero()) return unsupported("a span's digest is no SHA-256");
  }
  const auto& last = content.checkpoints.back();
  if (last.stored_offset >= ident.stored_end || last.plain_offset >= ident.tar_size)
    return corrupt("a span begins behind the layer's end");
  return {};
}

Result<TocEntry> entry_of(const FlatTable& file) {
  TocEntry entry;
  entry.name = file.text(field::kName);
  entry.type = file.text(field::kType);
  entry.link_name = file.text(field::kLink);
  HYDRANT_TRY(entry.offset, size_of(file.number<int64_t>(field::kOffset), "a file's offset"));
  HYDRANT_TRY(entry.size, size_of(file.number<int64_t>(field::kSize), "a file's size"));
  entry.mode = uint64_t(file.number<int64_t>(field::kMode));
  entry.uid = file.number<uint32_t>(field::kUid);
  entry.gid = file.number<uint32_t>(field::kGid);
  HYDRANT_TRY(entry.dev_major, size_of(file.number<int64_t>(field::kMajor), "a device's number"));
  HYDRANT_TRY(entry.dev_minor, size_of(file.number<int64_t>(field::kMinor), "a device's number"));
  const auto time = parse_rfc3339(file.text(field::kTime));
  if (!time) return corrupt(printable(entry.name) + " has a bad time");
  std::tie(entry.mtime, entry.mtime_nsec) = *time;
  const auto records = file.vector(field::kRecords, 4);
  for (uint32_t i = 0; i < records.size; ++i) {
    const FlatTable record = file.table_of(records, i);
    const std::string_view key = record.text(field::kKey), value = record.text(field::kValue);
    if (key.starts_with(kSparse)) return unsupported(printable(entry.name) + " is sparse, and it does not tell where");
    if (key.starts_with(kXattr)) entry.xattrs.emplace_back(key.substr(kXattr.size()), value);
    if (key.starts_with(kLibarchiveXattr))
      return unsupported(printable(entry.name) + " has attributes as libarchive writes them");
  }
  return entry;
}

Result<> read_files(const FlatTable& toc, FlatBuffer& buffer, LayerIndexContent& content) {
  const auto files = toc.vector(field::kFiles, 4);
  if (files.size > TarLimits{}.max_entries) return unsupported("has more than 8 million files");
  DevicePlacer placer;
  uint64_t end = 0;  // of the data before
  for (uint32_t i = 0; i < files.size && buffer.ok; ++i) {
    HYDRANT_TRY(auto entry, entry_of(toc.table_of(files, i)));
    const uint64_t offset = entry.offset;
    HYDRANT_TRY(auto file, toc_file(entry));
    if (!file) continue;
    HYDRANT_TRY_VOID(check_xattrs(*file));
    if (file->type == FileType::kRegular && file->size > 0) {
      if (offset < end || offset % 512 != 0 || offset > content.ident.tar_size ||
          file->size > content.ident.tar_size - offset)
        return corrupt(printable(file->path) + " has its data out of place");
      end = offset + file->size;
      placer.place(*file, {{0, offset, file->size}});
    }
    content.files.push_back(*std::move(file));
  }
  content.rows = std::move(placer.rows);
  content.ident.device_size = placer.size();
  return {};
}

}  // namespace

Result<BuiltLayer> build_ztoc_index(Bytes bytes, const LayerExpectation& expected) {
  FlatBuffer buffer{bytes};
  const FlatTable ztoc = FlatTable::root(buffer);
  const std::string version(ztoc.text(field::kVersion).substr(0, 20));
  if (!buffer.ok) return corrupt("is none");
  if (version != "0.9" && !version.starts_with("1.")) return unsupported("version " + printable(version));
  LayerIndexContent content;
  auto& ident = content.ident;
  ident.digest = expected.digest;
  ident.media_type = expected.media_type;
  ident.generator = "hydrant, of a zTOC";
  ident.granule = kGranule;
  HYDRANT_TRY(ident.stored_size, size_of(ztoc.number<int64_t>(field::kStoredSize), "the layer's size"));
  HYDRANT_TRY(ident.tar_size, size_of(ztoc.number<int64_t>(field::kPlainSize), "the tar's size"));
  ident.stored_end = ident.stored_size;
  if (expected.size && *expected.size != ident.stored_size) return corrupt("is another layer's");
  HYDRANT_TRY_VOID(read_spans(ztoc.table(field::kCompression), content));
  HYDRANT_TRY_VOID(read_files(ztoc.table(field::kToc), buffer, content));
  if (!buffer.ok) return corrupt("points out of itself");
  const uint64_t widest = widest_span(content.checkpoints, ident.stored_end);
  if (!is_lazy(widest)) return unsupported("data can be entered only every " + std::to_string(widest >> 20) + " MiB");
  return BuiltLayer{
      .index = encode_layer_index(content), .ident = ident, .merkle_root = {}, .files = content.files.size()};
}

}  // namespace hydrant::image
