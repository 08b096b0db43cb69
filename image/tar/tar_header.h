// One 512-byte tar header block, decoded; and the number fields that sparse maps share with it.
#pragma once

#include <cstdint>
#include <string>

#include "base/bytes.h"
#include "base/error.h"

namespace hydrant::image {

inline constexpr size_t kTarBlock = 512;

enum class TarDialect {
  kV7,
  kUstar,  // POSIX, pax included
  kStar,   // ustar with star's shorter prefix
  kGnu,    // also what GNU tar calls oldgnu
};

struct TarHeader {
  TarDialect dialect = TarDialect::kV7;
  char type = 0;  // the type flag as it stands; NUL for V7's regular files
  std::string name;
  std::string link_name;
  uint16_t mode = 0;  // 07777
  int64_t uid = 0;
  int64_t gid = 0;
  int64_t mtime = 0;
  uint64_t size = 0;  // of the payload
  int64_t rdev_major = 0;
  int64_t rdev_minor = 0;
};

// `block` is one whole block. kCorrupt when its checksum, taken over signed or over unsigned bytes, is wrong or a
// number is no number.
Result<TarHeader> decode_tar_header(Bytes block);

// Octal digits between blanks, or GNU base-256; an empty field is 0. kCorrupt for the rest and past 63 bits.
Result<int64_t> decode_tar_number(Bytes field);
Result<uint64_t> decode_tar_size(Bytes field);  // the same, negative is kCorrupt

}  // namespace hydrant::image
