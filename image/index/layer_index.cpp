#include "image/index/layer_index.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <algorithm>
#include <map>

#include "base/check.h"
#include "base/fd.h"
#include "base/file.h"
#include "image/index/index_sections.h"
#include "image/index/zstd_frame.h"
#include "proto/merkle.h"

namespace hydrant::image {
namespace {

constexpr char kMagic[8] = {'H', 'Y', 'D', 'R', 'L', 'I', 'X', '1'};
constexpr uint16_t kVersion = 1, kVersionByChunks = 2, kVersionAsStored = 3, kVersionDecoded = 4;
constexpr size_t kFixedHeader = 56, kEntrySize = 64, kDigestSize = 32;
constexpr size_t kMaxSections = 64;
constexpr uint32_t kStoredRaw = 0, kStoredZstd = 1;
constexpr int kSectionLevel = 9;
// A section may not claim more memory than its stored bytes make likely; the writer stores it raw rather than beyond.
constexpr uint64_t kMaxRatio = 256;
constexpr uint64_t kMaxRaw = 1ull << 30;

tl::unexpected<Error> corrupt(std::string what) { return fail(Code::kCorrupt, "layer index: " + std::move(what)); }

struct Entry {
  uint32_t compression = 0;
  uint64_t offset = 0;
  uint64_t stored_size = 0;
  uint64_t raw_size = 0;
  Digest digest;  // of the stored bytes
};

std::vector<Digest> chunk_digests(const std::vector<Chunk>& chunks) {
  std::vector<Digest> digests;
  digests.reserve(chunks.size());
  for (const auto& chunk : chunks) digests.push_back(chunk.digest);
  return digests;
}

Digest root_of(const LayerIdent& ident, const std::vector<Digest>& proofs) {
  return proto::merkle_root(proofs, {ident.device_size, ident.granule, ident.layout_version});
}

}  // namespace

Buffer encode_layer_index(const LayerIndexContent& content) {
  Buffer windows;
  for (const auto& window : content.windows) append(windows, window);
  const bool by_chunks = !content.toc.is_zero(), as_stored = !content.stored_digests.empty();
  std::vector<std::pair<SectionId, Buffer>> sections;
  sections.emplace_back(SectionId::kIdent, encode_ident(content.ident));
  if (!by_chunks) {
    sections.emplace_back(SectionId::kSpans, encode_spans(content.checkpoints, content.windows));
    sections.emplace_back(SectionId::kWindows, std::move(windows));
  }
  sections.emplace_back(SectionId::kFiles, encode_files(content.files, content.rows));
  sections.emplace_back(SectionId::kRows, encode_rows(content.rows));
  if (by_chunks) {
    sections.emplace_back(SectionId::kChunks, encode_chunks(content.toc, content.chunks));
  } else if (as_stored) {
    sections.emplace_back(SectionId::kStoredDigests, encode_leaves(content.stored_digests));
  } else {
    sections.emplace_back(SectionId::kLeaves, encode_leaves(content.leaves));
  }
  const bool decoded = content.decoded.size > 0;
  if (decoded) sections.emplace_back(SectionId::kDecoded, encode_decoded(content.decoded));
  Buffer table, body;
  const uint64_t body_offset = kFixedHeader + std::size(sections) * kEntrySize + kDigestSize;
  for (const auto& [id, raw] : sections) {
    Buffer stored;
    uint32_t compression = kStoredRaw;
    if (id == SectionId::kSpans || id == SectionId::kFiles || id == SectionId::kRows) {
      stored = zstd_compress(raw, kSectionLevel);
      if (stored.size() < raw.size() && raw.size() / kMaxRatio < stored.size()) compression = kStoredZstd;
    }
    if (compression == kStoredRaw) stored = raw;
    append_le<uint32_t>(table, static_cast<uint32_t>(id));
    append_le<uint32_t>(table, compression);
    append_le<uint64_t>(table, body_offset + body.size());
    append_le<uint64_t>(table, stored.size());
    append_le<uint64_t>(table, raw.size());
    append(table, sha256(stored).bytes);
    append(body, stored);
  }
  const auto& ident = content.ident;
  Buffer out;
  append(out, std::as_bytes(std::span(kMagic)));
  append_le<uint16_t>(out, by_chunks   ? kVersionByChunks
                           : as_stored ? kVersionAsStored
                           : decoded   ? kVersionDecoded
                                       : kVersion);
  append_le<uint16_t>(out, uint16_t(std::size(sections)));
  append_le<uint32_t>(out, 0);  // flags
  append_le<uint64_t>(out, body_offset + body.size());
  const auto proofs = by_chunks ? chunk_digests(content.chunks) : as_stored ? content.stored_digests : content.leaves;
  append(out, root_of(ident, proofs).bytes);
  append(out, table);
  append(out, sha256(out).bytes);
  append(out, body);
  return out;
}

// The index file's bytes: a descriptor, so that windows cost no memory, or a buffer. Thread-safe.
class LayerIndex::Store {
 public:
  explicit Store(Buffer bytes) : bytes_(std::move(bytes)), size_(bytes_.size()) {}
  Store(Fd fd, uint64_t size) : fd_(std::move(fd)), size_(size) {}

  uint64_t size() const { return size_; }
  uint64_t windows_offset = 0;
  Entry files;

  // `range` must lie inside the file; kCorrupt when that became shorter.
  Result<Buffer> read(uint64_t offset, uint64_t size) const {
    if (offset > size_ || size > size_ - offset) return corrupt("the file is cut short");
    if (!fd_) return to_buffer(Bytes(bytes_).subspan(offset, size));
    Buffer out(size);
    HYDRANT_TRY_VOID(pread_exact(fd_.get(), out, offset));
    return out;
  }

  // Whole section, digest checked.
  Result<Buffer> read_section(const Entry& entry) const {
    HYDRANT_TRY(auto stored, read(entry.offset, entry.stored_size));
    if (sha256(stored) != entry.digest) return corrupt("a section does not match its digest");
    if (entry.compression == kStoredRaw) return stored;
    HYDRANT_TRY(auto raw, zstd_decompress(stored, entry.raw_size));
    if (raw.size() != entry.raw_size) return corrupt("a section has a wrong size");
    return raw;
  }

  Result<> check_digest(const Entry& entry) const {
    constexpr uint64_t kStep = 256 << 10;
    Sha256 sha;
    for (uint64_t at = 0; at < entry.stored_size; at += kStep) {
      HYDRANT_TRY(auto part, read(entry.offset + at, std::min(kStep, entry.stored_size - at)));
      sha.update(part);
    }
    if (sha.finish() != entry.digest) return corrupt("a section does not match its digest");
    return {};
  }

 private:
  Buffer bytes_;
  Fd fd_;
  uint64_t size_;
};

LayerIndex::~LayerIndex() = default;

namespace {

struct Header {
  uint16_t version = 0;
  Digest root;
  std::map<uint32_t, Entry> sections;
};

// Sections stand one behind the other, in the order of their ids, and fill the file.
Result<Header> decode_header(Bytes head, uint64_t file_size) {
  Cursor in(head);
  const Bytes magic = in.take_bytes(sizeof kMagic);
  const auto version = in.take<uint16_t>();
  const auto count = in.take<uint16_t>();
  const auto flags = in.take<uint32_t>();
  const auto size = in.take<uint64_t>();
  Header header;
  header.version = version;
  std::ranges::copy(in.take_bytes(kDigestSize), header.root.bytes.begin());
  if (!in.ok() || !std::ranges::equal(magic, std::as_bytes(std::span(kMagic)))) return corrupt("not an index");
  if (version < kVersion || version > kVersionDecoded || flags != 0)
    return fail(Code::kUnsupported, "layer index: format version " + std::to_string(version));
  if (size != file_size || count > kMaxSections) return corrupt("the file is cut short");
  uint64_t end = kFixedHeader + count * kEntrySize + kDigestSize;
  uint32_t id_before = 0;
  for (int i = 0; i < count; ++i) {
    const auto id = in.take<uint32_t>();
    Entry entry{.compression = in.take<uint32_t>(),
                .offset = in.take<uint64_t>(),
                .stored_size = in.take<uint64_t>(),
                .raw_size = in.take<uint64_t>(),
                .digest = {}};
    std::ranges::copy(in.take_bytes(kDigestSize), entry.digest.bytes.begin());
    if (!in.ok() || id <= id_before || entry.offset != end || entry.stored_size > file_size - end ||
        entry.compression > kStoredZstd)
      return corrupt("bad section table");
    const bool raw_fits = entry.compression == kStoredRaw
                              ? entry.raw_size == entry.stored_size
                              : entry.raw_size <= kMaxRaw && entry.raw_size / kMaxRatio <= entry.stored_size;
    if (!raw_fits) return corrupt("a section claims an unlikely size");
    end += entry.stored_size;
    id_before = id;
    header.sections[id] = entry;
  }
  if (end != file_size) return corrupt("bad section table");
  const size_t covered = head.size() - in.rest().size();
  if (!std::ranges::equal(in.take_bytes(kDigestSize), sha256(head.first(covered)).bytes))
    return corrupt("the header does not match its digest");
  return header;
}

Result<> match(const LayerIdent& ident, const LayerExpectation& expected) {
  auto differs = [&](const char* what, const std::string& has, const std::string& wanted) {
    return corrupt(std::string(what) + " is " + has + ", expected " + wanted);
  };
  if (!expected.digest.is_zero() && ident.digest != expected.digest)
    return differs("layer digest", ident.digest.text(), expected.digest.text());
  if (!expected.diff_id.is_zero() && ident.diff_id != expected.diff_id)
    return differs("diff_id", ident.diff_id.text(), expected.diff_id.text());
  if (expected.size && ident.stored_size != *expected.size)
    return differs("layer size", std::to_string(ident.stored_size), std::to_string(*expected.size));
  return {};
}

}  // namespace

Result<std::shared_ptr<const LayerIndex>> LayerIndex::load_file(const std::string& path,
                                                                const LayerExpectation& expected) {
  HYDRANT_TRY(Fd fd, open_file(path, O_RDONLY));
  struct stat st {};
  if (fstat(fd.get(), &st) != 0) return fail_sys(errno, path);
  auto index = load(std::make_unique<Store>(std::move(fd), uint64_t(st.st_size)), expected);
  if (!index) return fail(std::move(index).error().in(path));
  return index;
}

Result<std::shared_ptr<const LayerIndex>> LayerIndex::load(Buffer bytes, const LayerExpectation& expected) {
  return load(std::make_unique<Store>(std::move(bytes)), expected);
}

Result<std::shared_ptr<const LayerIndex>> LayerIndex::load(std::unique_ptr<Store> store,
                                                           const LayerExpectation& expected) {
  constexpr uint64_t kMaxHead = kFixedHeader + kMaxSections * kEntrySize + kDigestSize;
  HYDRANT_TRY(auto head, store->read(0, std::min(store->size(), kMaxHead)));
  HYDRANT_TRY(auto header, decode_header(head, store->size()));
  auto entry = [&](SectionId id) -> Result<Entry> {
    auto found = header.sections.find(uint32_t(id));
    if (found == header.sections.end()) return corrupt("section " + std::to_string(uint32_t(id)) + " is missing");
    return found->second;
  };
  auto section = [&](SectionId id) -> Result<Buffer> {
    HYDRANT_TRY(auto found, entry(id));
    return store->read_section(found);
  };

  std::shared_ptr<LayerIndex> index(new LayerIndex);
  HYDRANT_TRY(auto ident_bytes, section(SectionId::kIdent));
  HYDRANT_TRY(index->ident_, decode_ident(ident_bytes));
  HYDRANT_TRY_VOID(match(index->ident_, expected));
  const LayerIdent& ident = index->ident_;

  if (header.version != kVersionByChunks) {
    const bool as_stored = header.version == kVersionAsStored;
    HYDRANT_TRY(auto windows, entry(SectionId::kWindows));
    if (windows.compression != kStoredRaw) return corrupt("windows are compressed as a whole");
    HYDRANT_TRY(auto span_bytes, section(SectionId::kSpans));
    HYDRANT_TRY(auto spans, decode_spans(span_bytes, ident, windows.raw_size, as_stored));
    index->checkpoints_ = std::move(spans.checkpoints);
    index->window_ends_ = std::move(spans.window_ends);
    store->windows_offset = windows.offset;
    HYDRANT_TRY(auto proof_bytes, section(as_stored ? SectionId::kStoredDigests : SectionId::kLeaves));
    if (as_stored) {
      HYDRANT_TRY(index->stored_digests_, decode_stored_digests(proof_bytes, index->checkpoints_.size()));
    } else {
      HYDRANT_TRY(index->leaves_, decode_leaves(proof_bytes, ident));
    }
    index->root_ = root_of(ident, as_stored ? index->stored_digests_ : index->leaves_);
  } else {
    HYDRANT_TRY(auto chunk_bytes, section(SectionId::kChunks));
    HYDRANT_TRY(auto table, decode_chunks(chunk_bytes, ident));
    index->toc_ = table.toc;
    index->chunks_ = std::move(table.chunks);
    index->chunk_ends_.reserve(index->chunks_.size());
    uint64_t end = 0;
    for (const auto& chunk : index->chunks_) index->chunk_ends_.push_back(end += chunk.length);
    index->root_ = root_of(ident, chunk_digests(index->chunks_));
  }
  if (header.version == kVersionDecoded) {
    HYDRANT_TRY(auto decoded_bytes, section(SectionId::kDecoded));
    HYDRANT_TRY(index->decoded_, decode_decoded(decoded_bytes));
  }
  HYDRANT_TRY(auto row_bytes, section(SectionId::kRows));
  HYDRANT_TRY(index->rows_, decode_rows(row_bytes, ident, index->decoded_.size));
  if (index->root_ != header.root) return corrupt("the digests do not match the Merkle root");
  HYDRANT_TRY(store->files, entry(SectionId::kFiles));
  // The others were checked when they were read.
  for (const auto& [id, found] : header.sections)
    if (id == uint32_t(SectionId::kWindows) || id == uint32_t(SectionId::kFiles) || id > uint32_t(SectionId::kLeaves))
      HYDRANT_TRY_VOID(store->check_digest(found));
  index->store_ = std::move(store);
  return std::shared_ptr<const LayerIndex>(std::move(index));
}

Span LayerIndex::span(size_t i) const {
  const bool last = i + 1 == checkpoints_.size();
  return {checkpoints_[i], last ? ident_.stored_end : checkpoints_[i + 1].stored_offset,
          last ? ident_.tar_size : checkpoints_[i + 1].plain_offset};
}

uint64_t widest_span(const std::vector<Checkpoint>& checkpoints, uint64_t stored_end) {
  uint64_t widest = 0;
  for (size_t i = 0; i < checkpoints.size(); ++i) {
    const uint64_t end = i + 1 < checkpoints.size() ? checkpoints[i + 1].stored_offset : stored_end;
    widest = std::max(widest, end - checkpoints[i].stored_offset);
  }
  return widest;
}

uint64_t widest_span(const std::vector<Chunk>& chunks, uint64_t stored_end) {
  uint64_t widest = 0, end = stored_end;  // of the member
  for (auto chunk = chunks.rbegin(); chunk != chunks.rend(); ++chunk) {
    widest = std::max(widest, end - chunk->stored_offset);
    if (const auto before = chunk + 1; before != chunks.rend() && before->stored_offset != chunk->stored_offset)
      end = chunk->stored_offset;
  }
  return widest;
}

uint64_t LayerIndex::widest_span() const {
  return by_chunks() ? image::widest_span(chunks_, ident_.stored_end)
                     : image::widest_span(checkpoints_, ident_.stored_end);
}

size_t LayerIndex::chunk_at(uint64_t plain_offset) const {
  return size_t(std::upper_bound(chunk_ends_.begin(), chunk_ends_.end(), plain_offset) - chunk_ends_.begin());
}

size_t LayerIndex::span_at(uint64_t plain_offset) const {
  auto after = std::upper_bound(checkpoints_.begin(), checkpoints_.end(), plain_offset,
                                [](uint64_t offset, const Checkpoint& at) { return offset < at.plain_offset; });
  return size_t(after - checkpoints_.begin()) - 1;
}

Result<Buffer> LayerIndex::window(size_t i) const {
  const uint64_t begin = i ? window_ends_[i - 1] : 0;
  if (window_ends_[i] == begin) return Buffer{};
  HYDRANT_TRY(auto frame, store_->read(store_->windows_offset + begin, window_ends_[i] - begin));
  return zstd_decompress(frame, kWindowSize);
}

Result<FileTable> LayerIndex::files() const {
  HYDRANT_TRY(auto raw, store_->read_section(store_->files));
  return decode_files(raw, rows_);
}

}  // namespace hydrant::image
