// Checks granules against the leaves of their object (proto/merkle.h) before they become present: what whoever holds a
// write handle cannot lie about. One an engine; `BackingFile` says when.
#pragma once

#include <list>
#include <mutex>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "base/byte_range.h"
#include "base/bytes.h"
#include "base/digest.h"
#include "base/error.h"
#include "cachefiles/counters.h"
#include "proto/content_map_file.h"
#include "proto/merkle.h"

namespace hydrant::cachefiles {

class Object;

// Bytes that lie apart, as one range.
class Pieces {
 public:
  // At most 64.
  explicit Pieces(std::span<const Bytes> pieces) : pieces_(pieces) {}
  uint64_t size() const;
  // Copies the bytes at `begin` of the whole: afterwards they are nobody's but the caller's.
  void copy(uint64_t begin, MutableBytes out) const;

 private:
  std::span<const Bytes> pieces_;
};

// Granules that came in part, in memory until all of one is here: what is not proven reaches no file. Thread-safe.
class PartialGranules {
 public:
  // Bytes of all that wait. Beyond it the oldest is forgotten, and whoever wrote it writes it again.
  static constexpr uint64_t kMost = 16 << 20;

  // `piece` lies at `at` of the object, inside `granule`, and is whole blocks, or ends with the granule. The granule,
  // once the last of its blocks has come.
  std::optional<Buffer> add(const proto::FileIdentity& file, ByteRange granule, uint64_t at, Bytes piece);

 private:
  struct Partial {
    proto::FileIdentity file;
    ByteRange granule;
    Buffer bytes;
    std::vector<bool> there;  // by block
    size_t missing;
  };
  std::mutex mutex_;
  std::list<Partial> partials_;  // the oldest first
  uint64_t bytes_ = 0;
};

// The leaves of one file, in its table on the disk (docs/formats/leaf-table.md).
struct LeafFile {
  const proto::MerkleProof& proof;
  std::string path;

  // Of granules [first, first + count). kIo, kCorrupt.
  Result<std::vector<Digest>> read(uint64_t first, uint64_t count) const;
  // Whether it still gives its root.
  bool sound() const;
};

// Thread-safe.
class Verifier {
 public:
  enum class Event { kWritten, kFound, kScrubbed };  // at which a granule is hashed

  explicit Verifier(Counters& counters) : counters_(counters) {}

  // Whether the bytes are those of granule `index` of `object`. Counts; says once of each granule that they are not.
  bool check(const LeafFile& file, const Object& object, const Digest& leaf, uint64_t index, Bytes bytes, Event event);
  // Leaves that cannot be read prove nothing.
  void no_leaves(const LeafFile& file, const Object& object, const Error& error);

  PartialGranules& partials() { return partials_; }

 private:
  // The log is no place for somebody's endless attempts.
  static constexpr size_t kMostNamed = 1024;
  bool first_time(const std::string& path, uint64_t index);

  Counters& counters_;
  PartialGranules partials_;
  std::mutex mutex_;
  std::set<std::pair<std::string, uint64_t>> named_;
};

// Who checks, and whose bytes.
struct Proving {
  Verifier& verifier;
  const std::string& maps_directory;
  const Object& object;  // for the log
};

}  // namespace hydrant::cachefiles
