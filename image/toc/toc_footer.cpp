#include "image/toc/toc_footer.h"

#include <algorithm>
#include <optional>

namespace hydrant::image {
namespace {

constexpr uint32_t kSkippable = 0x184d2a50;
constexpr size_t kSkippableHeader = 8;

tl::unexpected<Error> no_footer() { return fail(Code::kUnsupported, "no footer of a table of contents"); }

std::optional<uint64_t> parse_hex(std::string_view text) {
  uint64_t value = 0;
  for (char c : text) {
    const int digit = c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
    if (digit < 0) return std::nullopt;
    value = value << 4 | uint64_t(digit);
  }
  return value;
}

Result<TocPlace> place(uint64_t offset, uint64_t size, uint64_t plain_size, uint64_t end) {
  const auto stored = make_range(offset, size);
  if (!stored || stored->empty() || stored->end > end)
    return fail(Code::kCorrupt, "the footer puts the table of contents outside the layer");
  return TocPlace{*stored, plain_size};
}

// An empty gzip member whose extra field is the footer: the bytes from `size` before the end on.
std::optional<std::string_view> gzip_footer(Bytes tail, size_t size, size_t extra) {
  if (tail.size() < size) return std::nullopt;
  Cursor in(tail.last(size));
  const bool member = in.take<uint16_t>() == 0x8b1f && in.take<uint8_t>() == 8 && in.take<uint8_t>() == 4;
  in.take_bytes(6);  // time, compression flags, system
  if (!member || in.take<uint16_t>() != extra) return std::nullopt;
  return as_text(in.take_bytes(extra));
}

Result<TocPlace> decode_estargz(Bytes tail, uint64_t blob_size) {
  constexpr size_t kSize = 51, kLegacySize = 47, kExternalSize = 46;
  constexpr std::string_view kMagic = "STARGZ", kExternal = "STARGZEXTERNALTOC";
  constexpr size_t kDigits = 16, kSubfield = 4;
  // "SG", u16 length, then the offset and the magic; the first writers left the subfield's header out.
  const auto in_subfield = [](std::string_view field, size_t length) {
    return field.starts_with("SG") && uint8_t(field[2]) == length && field[3] == 0;
  };
  std::string_view told;
  size_t footer = 0;
  if (auto field = gzip_footer(tail, kSize, kSubfield + kDigits + kMagic.size());
      field && in_subfield(*field, kDigits + kMagic.size())) {
    told = field->substr(kSubfield);
    footer = kSize;
  } else if (auto legacy = gzip_footer(tail, kLegacySize, kDigits + kMagic.size())) {
    told = *legacy;
    footer = kLegacySize;
  } else if (auto external = gzip_footer(tail, kExternalSize, kSubfield + kExternal.size());
             external && in_subfield(*external, kExternal.size()) && external->substr(kSubfield) == kExternal) {
    return fail(Code::kUnsupported, "the table of contents stands in another image");
  }
  const auto offset = told.ends_with(kMagic) ? parse_hex(told.substr(0, kDigits)) : std::nullopt;
  if (!offset) return no_footer();
  const uint64_t end = blob_size - footer;
  if (*offset >= end) return fail(Code::kCorrupt, "the footer puts the table of contents outside the layer");
  return place(*offset, end - *offset, 0, end);
}

Result<TocPlace> decode_zstd_chunked(Bytes tail, uint64_t blob_size) {
  constexpr size_t kMagicSize = 8, kSizes[] = {64, 40};
  if (tail.size() < kMagicSize) return no_footer();
  const auto magic = as_text(tail.last(kMagicSize));
  if (magic != "GNUlInUx" && magic != "GnUlInUx") return no_footer();
  for (const size_t size : kSizes) {
    if (tail.size() < size + kSkippableHeader) continue;
    Cursor in(tail.last(size + kSkippableHeader));
    if ((in.take<uint32_t>() & 0xfffffff0) != kSkippable || in.take<uint32_t>() != size) continue;
    const auto offset = in.take<uint64_t>(), stored = in.take<uint64_t>(), plain = in.take<uint64_t>(),
               type = in.take<uint64_t>();
    if (type != kTocTypeCrfs) return fail(Code::kUnsupported, "a table of contents of type " + std::to_string(type));
    return place(offset, stored, plain, blob_size - size - kSkippableHeader);
  }
  return no_footer();
}

}  // namespace

Result<TocPlace> decode_toc_footer(TocKind kind, Bytes tail, uint64_t blob_size) {
  if (tail.size() > blob_size) return no_footer();
  return kind == TocKind::kEstargz ? decode_estargz(tail, blob_size) : decode_zstd_chunked(tail, blob_size);
}

}  // namespace hydrant::image
