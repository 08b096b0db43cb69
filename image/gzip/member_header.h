// A gzip member's header (RFC 1952 section 2.3), parsed as it arrives.
#pragma once

#include "base/bytes.h"
#include "base/error.h"

namespace hydrant::image {

// Not thread-safe.
class MemberHeader {
 public:
  // Consumes header bytes from the front of `stored`; true once the header is complete. Unknown methods and flags, a
  // wrong header CRC, and names past 64 KiB are kCorrupt.
  Result<bool> feed(Bytes& stored);
  // Ready for the next member.
  void reset() { *this = MemberHeader(); }

 private:
  enum class Part { kFixed, kExtraSize, kExtra, kName, kComment, kCrc, kDone };
  Part after(Part part) const;

  Part part_ = Part::kFixed;
  std::byte fixed_[10] = {};
  uint32_t have_ = 0;   // bytes of the current part
  uint32_t extra_ = 0;  // size of the extra field; the stored CRC while in kCrc
  uint32_t crc_ = 0;
};

}  // namespace hydrant::image
