// What a manifest says of a layer that carries a table of contents of its own: the annotations of its descriptor.
#pragma once

#include <map>
#include <optional>
#include <string>

#include "base/byte_range.h"
#include "base/digest.h"
#include "base/error.h"

namespace hydrant::image {

// The only kind of zstd:chunked table there is, in annotations and footers.
inline constexpr uint64_t kTocTypeCrfs = 1;

enum class TocKind : uint8_t { kEstargz = 1, kZstdChunked = 2 };

// Where the table stands in the stored blob, as it travels.
struct TocPlace {
  ByteRange stored;
  uint64_t plain_size = 0;  // 0: not told
  bool operator==(const TocPlace&) const = default;
};

struct TocReference {
  TocKind kind = TocKind::kEstargz;
  // What binds the table to the manifest: of an eStargz the SHA-256 of its JSON, of zstd:chunked of the compressed
  // table.
  Digest digest;
  std::optional<TocPlace> place;  // zstd:chunked may tell it; otherwise the blob's footer does
  bool operator==(const TocReference&) const = default;
};

// Nothing when no table is bound to the manifest: such a layer is read as any other, for nothing but the blob's digest
// proves it. Annotations that are malformed count as none.
std::optional<TocReference> toc_reference(const std::map<std::string, std::string>& annotations);

// "sha256:…" as annotations and tables have it; zero for anything else.
Digest toc_digest(const std::string& text);

// "eStargz", "zstd:chunked".
std::string to_string(TocKind kind);

}  // namespace hydrant::image
