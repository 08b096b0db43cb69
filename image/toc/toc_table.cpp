#include "image/toc/toc_table.h"

#include <algorithm>
#include <array>

#include "image/index/device_writer.h"
#include "image/tar/tar_member.h"
#include "image/tar/tar_path.h"
#include "image/tar/tar_reader.h"

namespace hydrant::image {
namespace {

// Small, because a fill that ends inside a granule has fetched the chunks of its other part for nothing.
constexpr uint32_t kGranule = 64 << 10;

constexpr std::array<std::string_view, 3> kHidden = {"stargz.index.json", ".prefetch.landmark",
                                                     ".no.prefetch.landmark"};
// What Go's JSON puts where a name is no UTF-8: its bytes are lost.
constexpr std::string_view kReplacement = "\xef\xbf\xbd";

constexpr std::pair<std::string_view, char> kTypes[] = {
    {"reg", '0'}, {"hardlink", '1'}, {"symlink", '2'}, {"char", '3'}, {"block", '4'}, {"dir", '5'}, {"fifo", '6'},
};

tl::unexpected<Error> corrupt(std::string_view name, std::string what) {
  return fail(Code::kCorrupt, "table of contents: " + printable(name) + " " + std::move(what));
}
tl::unexpected<Error> unsupported(std::string_view name, std::string what) {
  return fail(Code::kUnsupported, "table of contents: " + printable(name) + " " + std::move(what));
}

}  // namespace

Result<std::optional<FileEntry>> toc_file(TocEntry& entry) {
  TarHeader header;
  for (const auto& [name, flag] : kTypes)
    if (entry.type == name) header.type = flag;
  if (!header.type) return unsupported(entry.name, "has type " + printable(entry.type));
  for (const auto& name : {entry.name, entry.link_name})
    if (name.find(kReplacement) != name.npos) return unsupported(name, "was no UTF-8");
  if (entry.size > TarLimits{}.max_file_size) return unsupported(entry.name, "is larger than 16 TiB");
  for (uint64_t number : {entry.uid, entry.gid, entry.dev_major, entry.dev_minor})
    if (number > UINT32_MAX) return unsupported(entry.name, "has an owner or device that does not fit 32 bits");
  header.name = std::move(entry.name);
  header.link_name = std::move(entry.link_name);
  header.mode = uint16_t(entry.mode & 07777);
  header.uid = int64_t(entry.uid);
  header.gid = int64_t(entry.gid);
  if (header.type == '3' || header.type == '4') {
    header.rdev_major = int64_t(entry.dev_major);
    header.rdev_minor = int64_t(entry.dev_minor);
  }
  header.size = entry.size;
  PaxValues pax;
  pax.mtime = entry.mtime;
  pax.mtime_nsec = entry.mtime_nsec;
  for (auto& [name, value] : entry.xattrs)
    if (!pax.xattrs.emplace(std::move(name), std::move(value)).second)
      return corrupt(header.name, "has an extended attribute twice");
  auto made = make_entry(header, pax);
  entry.name = std::move(header.name);
  return made;
}

Result<> TocTable::add(TocEntry&& entry) {
  if (entry.type == "chunk") return add_chunk(std::move(entry));
  HYDRANT_TRY_VOID(close_file());
  if (files_.size() >= TarLimits{}.max_entries) return unsupported(entry.name, "is one entry too many");
  name_ = entry.name;
  HYDRANT_TRY(auto file, toc_file(entry));
  hidden_ = !file || std::find(kHidden.begin(), kHidden.end(), file->path) != kHidden.end();
  if (hidden_) return {};
  HYDRANT_TRY_VOID(check_xattrs(*file));
  const bool has_data = file->type == FileType::kRegular && file->size > 0;
  files_.push_back(*std::move(file));
  if (!has_data) return {};
  open_ = Data{.file = files_.size() - 1, .first = chunks_.size()};
  digest_ = entry.digest;
  return add_chunk(std::move(entry));
}

Result<> TocTable::add_chunk(TocEntry&& entry) {
  if (hidden_) return {};
  if (!open_ || (!entry.name.empty() && entry.name != name_)) return corrupt(entry.name, "is a chunk of no file");
  chunks_.push_back({.file_offset = entry.chunk_offset,
                     .chunk = {.stored_offset = entry.offset,
                               .inner_offset = entry.inner_offset,
                               .length = entry.chunk_size,
                               .digest = entry.chunk_digest},
                     .zeros = entry.zeros,
                     .proven = !entry.chunk_digest.is_zero()});
  ++open_->count;
  return {};
}

// The chunks of the last regular file must cover it, one behind the other.
Result<> TocTable::close_file() {
  hidden_ = false;
  if (!open_) return {};
  Data data = *std::exchange(open_, {});
  const uint64_t size = files_[data.file].size;
  const auto begin = chunks_.begin() + ptrdiff_t(data.first);
  uint64_t end = 0;
  for (auto chunk = begin; chunk != chunks_.end(); ++chunk) {
    const uint64_t next = chunk + 1 == chunks_.end() ? size : chunk[1].file_offset;
    auto& length = chunk->chunk.length;
    if (chunk->file_offset != end || next <= end || next > size || (length != 0 && length != next - end))
      return corrupt(name_, "has chunks that do not cover it");
    length = next - end;
    end = next;
    if (length == size && !chunk->proven && !digest_.is_zero()) {
      chunk->chunk.digest = digest_;
      chunk->proven = true;
    }
    if (chunk->zeros) continue;
    if (!chunk->proven) return unsupported(name_, "has data without a SHA-256 digest");
    if (length > kMaxChunk || chunk->chunk.inner_offset > kMaxChunk)
      return unsupported(
          name_, "has a chunk of " + std::to_string(std::max(length, chunk->chunk.inner_offset) >> 20) + " MiB");
  }
  chunks_.erase(std::remove_if(begin, chunks_.end(), [](const FileChunk& chunk) { return chunk.zeros; }),
                chunks_.end());
  data.count = chunks_.size() - data.first;
  if (data.count > 0) data_.push_back(data);
  return {};
}

Result<LayerIndexContent> TocTable::finish(LayerIdent ident, const Digest& toc) {
  HYDRANT_TRY_VOID(close_file());
  // The order of the data is that of the blob, whatever the table's is: a device is cut into fills by neighbourhood.
  const auto place_of = [&](const Data& data) {
    const Chunk& chunk = chunks_[data.first].chunk;
    return std::pair(chunk.stored_offset, chunk.inner_offset);
  };
  std::stable_sort(data_.begin(), data_.end(), [&](const Data& a, const Data& b) { return place_of(a) < place_of(b); });

  LayerIndexContent content;
  content.toc = toc;
  content.chunks.reserve(chunks_.size());
  DevicePlacer placer;
  uint64_t plain = 0;
  for (const Data& data : data_) {
    FileEntry& file = files_[data.file];
    std::vector<TarSegment> segments;
    for (size_t i = data.first; i < data.first + data.count; ++i) {
      const auto& [file_offset, chunk, zeros, proven] = chunks_[i];
      if (chunk.stored_offset >= ident.stored_end) return corrupt(file.path, "stands behind the layer's data");
      if (!content.chunks.empty()) {
        const Chunk& before = content.chunks.back();
        const bool shared = chunk.stored_offset == before.stored_offset;
        if (chunk.stored_offset < before.stored_offset ||
            (shared && chunk.inner_offset < before.inner_offset + before.length))
          return unsupported(file.path, "has its data out of order");
      }
      content.chunks.push_back(chunk);
      if (!segments.empty() && segments.back().file_offset + segments.back().length == file_offset) {
        segments.back().length += chunk.length;
      } else {
        segments.push_back({file_offset, plain, chunk.length});
      }
      plain += chunk.length;
    }
    placer.place(file, segments);
  }
  ident.tar_size = plain;
  ident.device_size = placer.size();
  ident.granule = kGranule;
  content.ident = std::move(ident);
  content.files = std::move(files_);
  content.rows = std::move(placer.rows);
  return content;
}

}  // namespace hydrant::image
