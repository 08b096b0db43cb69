#include "proto/erofs_layout.h"

namespace hydrant::proto::erofs {

uint32_t checksum(Bytes bytes) {
  constexpr uint32_t kPolynomial = 0x82F63B78;  // Castagnoli, reflected
  uint32_t crc = 0xFFFFFFFF;
  for (std::byte byte : bytes) {
    crc ^= std::to_integer<uint32_t>(byte);
    for (int bit = 0; bit < 8; ++bit) crc = crc >> 1 ^ (crc & 1 ? kPolynomial : 0);
  }
  return crc;
}

}  // namespace hydrant::proto::erofs
