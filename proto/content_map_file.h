// The content map of one object as a file (docs/formats/content-map.md): which 4096-byte blocks of a backing file are
// both present and durable, and which file that is.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "base/bytes.h"
#include "base/error.h"

namespace hydrant::proto {

inline constexpr uint64_t kMapBlockSize = 4096;
inline constexpr unsigned kMapLeafWords = 64;
inline constexpr uint64_t kMapLeafBlocks = kMapLeafWords * 64;             // 4096 blocks
inline constexpr uint64_t kMapLeafBytes = kMapLeafBlocks * kMapBlockSize;  // 16 MiB of the backing file
inline constexpr uint64_t kMapLeafLimit = uint64_t{1} << 20;               // a backing file is at most 16 TiB
inline constexpr uint32_t kContentMapVersion = 1;

// Random bytes that a backing file carries in an extended attribute; a map vouches for that file only.
using FileIdentity = std::array<std::byte, 16>;
inline constexpr char kIdentityLabelName[] = "user.Hydrant.map";

struct ContentMapLeaf {
  uint64_t index = 0;  // the leaf covers blocks [index * 4096, index * 4096 + 4096)
  std::array<uint64_t, kMapLeafWords> bits{};
  bool operator==(const ContentMapLeaf&) const = default;
};

struct ContentMapFile {
  uint64_t generation = 0;   // one more at each write
  uint64_t inode = 0;        // of the backing file
  uint64_t object_size = 0;  // as its label says
  uint64_t file_size = 0;    // length of the backing file when the map was made; it may have grown since
  FileIdentity identity{};
  std::vector<ContentMapLeaf> leaves{};  // ascending, none empty
  bool operator==(const ContentMapFile&) const = default;
};

// Bytes of a map with that many leaves.
size_t content_map_file_size(size_t leaves);

Buffer encode_content_map(const ContentMapFile& map);
// kCorrupt for anything but a whole and consistent map, kUnsupported for a later version.
Result<ContentMapFile> decode_content_map(Bytes bytes);

}  // namespace hydrant::proto
