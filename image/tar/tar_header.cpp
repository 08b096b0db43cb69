#include "image/tar/tar_header.h"

#include <algorithm>

namespace hydrant::image {
namespace {

struct Field {
  size_t at;
  size_t size;
};

constexpr Field kName{0, 100};
constexpr Field kMode{100, 8};
constexpr Field kUid{108, 8};
constexpr Field kGid{116, 8};
constexpr Field kSize{124, 12};
constexpr Field kMtime{136, 12};
constexpr Field kChecksum{148, 8};
constexpr Field kType{156, 1};
constexpr Field kLinkName{157, 100};
constexpr Field kMagic{257, 8};  // with the version
constexpr Field kDevMajor{329, 8};
constexpr Field kDevMinor{337, 8};
constexpr Field kPrefix{345, 155};
constexpr Field kStarPrefix{345, 131};
constexpr Field kStarMagic{508, 4};

Bytes bytes_of(Bytes block, Field field) { return block.subspan(field.at, field.size); }

// Up to the first NUL, or the whole field.
std::string_view text_of(Bytes block, Field field) {
  std::string_view text = as_text(bytes_of(block, field));
  return text.substr(0, std::min(text.find('\0'), text.size()));
}

bool checksum_matches(Bytes block, int64_t stored) {
  int64_t of_unsigned = 0;
  int64_t of_signed = 0;
  for (size_t i = 0; i < kTarBlock; ++i) {
    bool blank = i >= kChecksum.at && i < kChecksum.at + kChecksum.size;
    auto byte = blank ? uint8_t{' '} : std::to_integer<uint8_t>(block[i]);
    of_unsigned += byte;
    of_signed += static_cast<int8_t>(byte);
  }
  return stored == of_unsigned || stored == of_signed;
}

TarDialect dialect_of(Bytes block) {
  std::string_view magic = as_text(bytes_of(block, kMagic));
  if (magic.starts_with("ustar ")) return TarDialect::kGnu;
  if (!magic.starts_with(std::string_view("ustar\0", 6))) return TarDialect::kV7;
  bool star = as_text(bytes_of(block, kStarMagic)) == std::string_view("tar\0", 4);
  return star ? TarDialect::kStar : TarDialect::kUstar;
}

// Two's complement, most significant byte first; the top bit of the first byte marks the form and is no digit.
Result<int64_t> decode_base256(Bytes field) {
  auto first = std::to_integer<uint8_t>(field[0]);
  bool negative = (first & 0x40) != 0;
  uint8_t flip = negative ? 0xff : 0;
  uint64_t magnitude = 0;
  for (size_t i = 0; i < field.size(); ++i) {
    uint8_t byte = std::to_integer<uint8_t>(field[i]) ^ flip;
    if (i == 0) byte &= 0x3f;
    if (magnitude >> 55) return fail(Code::kCorrupt, "a number in a tar header is larger than 63 bits");
    magnitude = magnitude << 8 | byte;
  }
  auto value = static_cast<int64_t>(magnitude);
  return negative ? ~value : value;
}

}  // namespace

Result<int64_t> decode_tar_number(Bytes field) {
  if (!field.empty() && std::to_integer<uint8_t>(field[0]) & 0x80) return decode_base256(field);
  std::string_view text = as_text(field);
  size_t begin = text.find_first_not_of(std::string_view(" \0", 2));
  if (begin == text.npos) return 0;
  size_t end = std::min(text.find_first_of(std::string_view(" \0", 2), begin), text.size());
  int64_t value = 0;
  for (char c : text.substr(begin, end - begin)) {
    if (c < '0' || c > '7' || value >> 60) return fail(Code::kCorrupt, "a number in a tar header is malformed");
    value = value << 3 | (c - '0');
  }
  return value;
}

Result<uint64_t> decode_tar_size(Bytes field) {
  HYDRANT_TRY(int64_t value, decode_tar_number(field));
  if (value < 0) return fail(Code::kCorrupt, "a size in a tar header is negative");
  return static_cast<uint64_t>(value);
}

Result<TarHeader> decode_tar_header(Bytes block) {
  HYDRANT_TRY(int64_t checksum, decode_tar_number(bytes_of(block, kChecksum)));
  if (!checksum_matches(block, checksum)) {
    return fail(Code::kCorrupt, "this is no tar header: its checksum is wrong");
  }
  TarHeader header;
  header.dialect = dialect_of(block);
  header.type = static_cast<char>(block[kType.at]);
  header.name = text_of(block, kName);
  header.link_name = text_of(block, kLinkName);
  if (header.dialect == TarDialect::kUstar || header.dialect == TarDialect::kStar) {
    auto prefix = text_of(block, header.dialect == TarDialect::kStar ? kStarPrefix : kPrefix);
    if (!prefix.empty()) header.name = std::string(prefix) + '/' + header.name;
  }
  HYDRANT_TRY(int64_t mode, decode_tar_number(bytes_of(block, kMode)));
  header.mode = mode & 07777;
  HYDRANT_TRY(header.uid, decode_tar_number(bytes_of(block, kUid)));
  HYDRANT_TRY(header.gid, decode_tar_number(bytes_of(block, kGid)));
  HYDRANT_TRY(header.size, decode_tar_size(bytes_of(block, kSize)));
  HYDRANT_TRY(header.mtime, decode_tar_number(bytes_of(block, kMtime)));
  if (header.type == '3' || header.type == '4') {
    HYDRANT_TRY(header.rdev_major, decode_tar_number(bytes_of(block, kDevMajor)));
    HYDRANT_TRY(header.rdev_minor, decode_tar_number(bytes_of(block, kDevMinor)));
  }
  return header;
}

}  // namespace hydrant::image
