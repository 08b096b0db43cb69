// For tests: zTOCs put together by hand, and of what the layer builder has made.
#pragma once

#include <algorithm>
#include <map>
#include <memory>
#include <string>
#include <variant>
#include <vector>

#include "base/bytes.h"
#include "base/digest.h"
#include "image/index/layer_index.h"

namespace hydrant::image::fixture {

// A value of a FlatBuffer. Scalars take eight bytes whatever their type: readers look at the first.
struct Flat {
  using Table = std::map<unsigned, Flat>;
  std::variant<int64_t, std::string, Table, std::vector<Flat>, Buffer> value;

  Flat(int64_t number) : value(number) {}
  Flat(const char* text) : value(std::string(text)) {}
  Flat(std::string text) : value(std::move(text)) {}
  Flat(Table table) : value(std::move(table)) {}
  Flat(std::vector<Flat> list) : value(std::move(list)) {}
  Flat(Buffer bytes) : value(std::move(bytes)) {}

  Flat& operator[](unsigned field) { return std::get<Table>(value).at(field); }

  Buffer buffer() const {
    Buffer out(4);
    const size_t root = write(out);
    store_le(out.data(), uint32_t(root));
    return out;
  }

 private:
  bool is_scalar() const { return std::holds_alternative<int64_t>(value); }
  static void refer(Buffer& out, size_t from, const Flat& to) {
    const size_t at = to.write(out);
    store_le(out.data() + from, uint32_t(at - from));
  }
  // Yields the place of what it appends.
  size_t write(Buffer& out) const {
    if (auto* table = std::get_if<Table>(&value)) {
      const unsigned fields = table->empty() ? 0 : table->rbegin()->first + 1;
      const size_t vtable = out.size();
      append_le<uint16_t>(out, uint16_t(4 + 2 * fields));
      append_le<uint16_t>(out, uint16_t(4 + 8 * table->size()));
      unsigned slot = 0;
      for (unsigned field = 0; field < fields; ++field)
        append_le<uint16_t>(out, table->contains(field) ? uint16_t(4 + 8 * slot++) : uint16_t(0));
      const size_t at = out.size();
      append_le<int32_t>(out, int32_t(at - vtable));
      for (const auto& [field, item] : *table)
        append_le<int64_t>(out, item.is_scalar() ? std::get<int64_t>(item.value) : 0);
      slot = 0;
      for (const auto& [field, item] : *table) {
        if (!item.is_scalar()) refer(out, at + 4 + 8 * slot, item);
        ++slot;
      }
      return at;
    }
    const size_t at = out.size();
    if (auto* list = std::get_if<std::vector<Flat>>(&value)) {
      append_le<uint32_t>(out, uint32_t(list->size()));
      out.resize(out.size() + 4 * list->size());
      for (size_t i = 0; i < list->size(); ++i) refer(out, at + 4 + 4 * i, (*list)[i]);
    } else if (auto* bytes = std::get_if<Buffer>(&value)) {
      append_le<uint32_t>(out, uint32_t(bytes->size()));
      append(out, *bytes);
    } else if (auto* text = std::get_if<std::string>(&value)) {
      append_le<uint32_t>(out, uint32_t(text->size()));
      append(out, as_bytes(*text));
    }
    return at;
  }
};

// The zTOC of a layer of regular files, as SOCI would make it of the same checkpoints.
inline Flat ztoc(const LayerIndex& index, Bytes stored) {
  const auto& ident = index.ident();
  std::vector<Flat> files, digests;
  const auto table = *index.files();
  for (const auto& file : table) {
    uint64_t at = 0;
    for (const auto& row : index.rows())
      if (!file.data.empty() && row.device_offset == file.data[0].device_offset) at = row.tar_offset;
    files.emplace_back(Flat::Table{{0, file.path},
                                   {1, "reg"},
                                   {2, int64_t(at)},
                                   {3, int64_t(file.size)},
                                   {5, 0100000 | file.mode},
                                   {10, "2023-11-14T22:13:20Z"}});
  }
  Buffer checkpoints;
  int64_t algorithm = 1;
  if (ident.compression == Compression::kNone) {
    algorithm = 2;
    constexpr uint64_t kSpan = 300'000;
    append_le<uint32_t>(checkpoints, 2);
    append_le<uint64_t>(checkpoints, kSpan);
    append_le<uint64_t>(checkpoints, stored.size());
    for (uint64_t at = 0; at < stored.size(); at += kSpan)
      digests.emplace_back(sha256(stored.subspan(at, std::min(kSpan, stored.size() - at))).text());
  } else {
    append_le<uint32_t>(checkpoints, uint32_t(index.span_count()));
    append_le<uint64_t>(checkpoints, ident.span);
    for (size_t i = 0; i < index.span_count(); ++i) {
      const Span span = index.span(i);
      const uint64_t begin = i ? span.stored().begin : 10;
      const uint64_t end = i + 1 < index.span_count() ? span.stored_end : stored.size();
      append_le<uint64_t>(checkpoints, i ? span.start.stored_offset : begin);
      append_le<uint64_t>(checkpoints, span.start.plain_offset);
      append_le<uint8_t>(checkpoints, span.start.bits);
      Buffer window = *index.window(i);
      window.insert(window.begin(), kWindowSize - window.size(), std::byte{0});
      append(checkpoints, window);
      digests.emplace_back(sha256(stored.subspan(begin, end - begin)).text());
    }
  }
  const auto spans = int64_t(digests.size());
  return Flat::Table{
      {0, "0.9"},
      {1, "a test"},
      {2, int64_t(stored.size())},
      {3, int64_t(ident.tar_size)},
      {4, Flat::Table{{0, std::move(files)}}},
      {5, Flat::Table{{0, algorithm}, {1, spans - 1}, {2, std::move(digests)}, {3, std::move(checkpoints)}}}};
}

}  // namespace hydrant::image::fixture
