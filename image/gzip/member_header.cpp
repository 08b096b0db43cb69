#include "image/gzip/member_header.h"

#include <isa-l/crc.h>

#include <algorithm>

namespace hydrant::image {
namespace {

constexpr uint8_t kHasHeaderCrc = 2, kHasExtra = 4, kHasName = 8, kHasComment = 16, kReserved = 0xe0;
constexpr uint32_t kMaxText = 64 << 10;

uint32_t crc_of(uint32_t crc, Bytes bytes) {
  return crc32_gzip_refl(crc, reinterpret_cast<const unsigned char*>(bytes.data()), bytes.size());
}

}  // namespace

MemberHeader::Part MemberHeader::after(Part part) const {
  const auto flags = uint8_t(fixed_[3]);
  switch (part) {
    case Part::kFixed:
      if (flags & kHasExtra) return Part::kExtraSize;
      [[fallthrough]];
    case Part::kExtraSize:
    case Part::kExtra:
      if (flags & kHasName) return Part::kName;
      [[fallthrough]];
    case Part::kName:
      if (flags & kHasComment) return Part::kComment;
      [[fallthrough]];
    case Part::kComment:
      if (flags & kHasHeaderCrc) return Part::kCrc;
      [[fallthrough]];
    default: return Part::kDone;
  }
}

Result<bool> MemberHeader::feed(Bytes& stored) {
  auto consume = [&](size_t size) {
    if (part_ != Part::kCrc) crc_ = crc_of(crc_, stored.first(size));
    stored = stored.subspan(size);
  };
  auto advance = [&](Part part) {
    part_ = part;
    have_ = 0;
  };
  while (part_ != Part::kDone && !stored.empty()) {
    switch (part_) {
      case Part::kFixed: {
        const size_t size = std::min<size_t>(stored.size(), sizeof fixed_ - have_);
        std::copy_n(stored.begin(), size, fixed_ + have_);
        consume(size);
        if ((have_ += size) < sizeof fixed_) break;
        if (fixed_[0] != std::byte{0x1f} || fixed_[1] != std::byte{0x8b})
          return fail(Code::kCorrupt, "gzip: no member where one must start");
        if (fixed_[2] != std::byte{8}) return fail(Code::kCorrupt, "gzip: unknown compression method");
        if (uint8_t(fixed_[3]) & kReserved) return fail(Code::kCorrupt, "gzip: reserved header flags are set");
        advance(after(Part::kFixed));
        break;
      }
      case Part::kExtraSize:
        extra_ |= uint32_t(stored[0]) << (8 * have_);
        consume(1);
        if (++have_ == 2) advance(extra_ ? Part::kExtra : after(Part::kExtra));
        break;
      case Part::kExtra: {
        const size_t size = std::min<size_t>(stored.size(), extra_ - have_);
        consume(size);
        if ((have_ += size) == extra_) advance(after(Part::kExtra));
        break;
      }
      case Part::kName:
      case Part::kComment: {
        auto zero = std::find(stored.begin(), stored.end(), std::byte{0});
        const auto text = uint64_t(zero - stored.begin());
        if (have_ + text > kMaxText) return fail(Code::kCorrupt, "gzip: a header text is over 64 KiB");
        have_ += text;
        const bool ended = zero != stored.end();
        consume(text + (ended ? 1 : 0));
        if (ended) advance(after(part_));
        break;
      }
      case Part::kCrc:
        if (have_ == 0) extra_ = 0;
        extra_ |= uint32_t(stored[0]) << (8 * have_);
        consume(1);
        if (++have_ < 2) break;
        if (extra_ != (crc_ & 0xffff)) return fail(Code::kCorrupt, "gzip: the header's CRC does not match");
        advance(Part::kDone);
        break;
      case Part::kDone: break;
    }
  }
  return part_ == Part::kDone;
}

}  // namespace hydrant::image
