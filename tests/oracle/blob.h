// The bytes of every object that scripts use, computable on both sides: EROFS images and their devices.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace hydrant::oracle {

inline constexpr uint64_t kPage = 4096;
inline constexpr uint64_t kFileBlocks = 16;  // of the file that an image has on each of its devices
inline constexpr uint64_t kBlobSize = (kFileBlocks + 1) * kPage;  // an image: its metadata in block 0, then the file

// Devices that the image of this name has: the names p and q stand for one, s and t for two, others for none.
std::vector<std::string> devices_of(std::string_view image);
// Bytes [offset, offset + size) of a blob.
std::string blob_bytes(std::string_view name, uint64_t offset, size_t size);

}  // namespace hydrant::oracle
