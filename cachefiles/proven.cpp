// Backing files whose bytes must hash to leaves: nothing else becomes present in them (docs/cachefiles.md 11).
#include <fcntl.h>
#include <sys/stat.h>

#include <algorithm>

#include "base/check.h"
#include "base/file.h"
#include "base/log.h"
#include "cachefiles/backing_file.h"
#include "cachefiles/verifier.h"
#include "proto/leaf_table.h"

namespace hydrant::cachefiles {
namespace {

// Leaves that are read at a time.
constexpr uint64_t kMostLeaves = 64;
// Of an earlier run's bytes that one miss proves.
constexpr uint64_t kMostFound = 1 << 20;

// A cut may lose it: then it is brought anew, and what is present proves itself anew.
Result<> replace_unsynced(const std::string& path, Bytes bytes) {
  const std::string fresh = path + ".new";
  HYDRANT_TRY(Fd fd, open_file(fresh, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW));
  HYDRANT_TRY_VOID(pwrite_all(fd.get(), bytes, 0));
  if (::rename(fresh.c_str(), path.c_str()) != 0) return fail_sys(errno, "rename " + fresh);
  return {};
}

// Of the calling thread: granules are copied here before they are hashed, so that nobody else can change them.
MutableBytes scratch(uint64_t size) {
  thread_local Buffer memory;
  if (memory.size() < size) memory.resize(size);
  return MutableBytes(memory).first(size);
}

}  // namespace

LeafFile BackingFile::leaves(const proto::MerkleProof& proof, const std::string& maps_directory) const {
  return {proof, map_path(maps_directory) + kLeavesSuffix};
}

// Whoever comes after the mark goes the guarded way; whoever came before has ended when this returns.
void BackingFile::guard() {
  guarded_.store(true);
  for (int writers = unguarded_.load(); writers != 0; writers = unguarded_.load()) unguarded_.wait(writers);
}

int64_t BackingFile::fill(Disk& disk, const Proving& proving, std::span<const Bytes> pieces, uint64_t offset) {
  unguarded_.fetch_add(1);
  const bool guarded = guarded_.load();
  const int64_t done = guarded ? 0 : write(disk, pieces, offset);
  if (unguarded_.fetch_sub(1) == 1) unguarded_.notify_all();
  if (!guarded) return done;
  const auto* proof = proof_.load(std::memory_order_acquire);
  return proof ? fill_proven(disk, proving, *proof, pieces, offset) : fill_once(disk, pieces, offset);
}

// Somebody may have proven what is present by his own means, or reads it past us: it stays as it is.
int64_t BackingFile::fill_once(Disk& disk, std::span<const Bytes> pieces, uint64_t offset) {
  const Pieces whole(pieces);
  auto range = make_range(offset, whole.size());
  if (!range || range->end > ContentMap::kBlocks * kBlockSize) return -EFBIG;
  std::lock_guard one_at_a_time(once_);
  for (uint64_t at = offset; at < range->end;) {
    const auto found = survey({at, round_up(range->end, kBlockSize)});
    const uint64_t end = std::min(range->end, at + found.size);
    if (found.kind == Survey::Kind::kError) return -EIO;
    if (found.kind == Survey::Kind::kHole) {
      Buffer bytes(end - at);
      whole.copy(at - offset, bytes);
      const int64_t done = write(disk, Bytes(bytes), at);
      if (done < static_cast<int64_t>(bytes.size())) {
        const int64_t before = static_cast<int64_t>(at - offset) + std::max<int64_t>(done, 0);
        return before > 0 ? before : done;
      }
    }
    at = end;
  }
  return static_cast<int64_t>(range->size());
}

int64_t BackingFile::fill_proven(Disk& disk, const Proving& proving, const proto::MerkleProof& proof,
                                 std::span<const Bytes> pieces, uint64_t offset) {
  const proto::MerkleShape& shape = proof.shape;
  const Pieces whole(pieces);
  auto range = make_range(offset, whole.size());
  if (!range || range->end > shape.device_size) return -EFBIG;
  const LeafFile file = leaves(proof, proving.maps_directory);
  std::vector<Digest> known;  // from leaf `first`
  uint64_t first = 0;
  auto stop = [&](uint64_t at, int64_t error) { return at > offset ? static_cast<int64_t>(at - offset) : error; };
  for (uint64_t at = offset; at < range->end;) {
    const uint64_t index = at / shape.granule;
    const ByteRange granule = shape.granule_range(index);
    const ByteRange part = intersect(*range, granule);
    const ByteRange here{at, part.end};
    at = here.end;
    // Proven before; whoever writes it again writes the same, or nothing.
    if (present(granule)) continue;
    MutableBytes bytes = scratch(here.size());
    Buffer joined;
    whole.copy(here.begin - offset, bytes);
    Bytes complete = bytes;
    if (here != granule) {
      // The rest of a last block is zeros, as in any write.
      if (here.end != granule.end && here.end % kBlockSize != 0) {
        joined = to_buffer(bytes);
        joined.resize(round_up(here.end, kBlockSize) - here.begin);
        complete = joined;
      }
      auto all = proving.verifier.partials().add(identity_, granule, here.begin, complete);
      if (!all) continue;
      joined = std::move(*all);
      complete = joined;
    }
    if (known.empty() || index >= first + known.size()) {
      const uint64_t last = std::min((range->end - 1) / shape.granule, index + kMostLeaves - 1);
      auto read = file.read(index, last - index + 1);
      if (!read) {
        proving.verifier.no_leaves(file, proving.object, read.error());
        return stop(here.begin, -EIO);
      }
      known = std::move(*read);
      first = index;
    }
    if (!proving.verifier.check(file, proving.object, known[index - first], index, complete, Verifier::Event::kWritten))
      return stop(here.begin, -EIO);
    const int64_t done = write(disk, complete, granule.begin);
    if (done != static_cast<int64_t>(complete.size())) return stop(here.begin, done < 0 ? done : -EIO);
  }
  return static_cast<int64_t>(range->size());
}

// A granule's bytes, all of which the file has. False: it has a hole there, or cannot be read.
bool BackingFile::read_whole(int fd, ByteRange granule, MutableBytes out) const {
  if (::lseek(fd, static_cast<off_t>(granule.begin), SEEK_DATA) != static_cast<off_t>(granule.begin)) return false;
  const off_t hole = ::lseek(fd, static_cast<off_t>(granule.begin), SEEK_HOLE);
  if (hole < 0 || static_cast<uint64_t>(hole) < granule.end) return false;
  return inject_read() == 0 && pread_exact(fd, out, granule.begin).has_value();
}

bool BackingFile::find(const Proving& proving, ByteRange window) {
  const auto* proof = proof_.load(std::memory_order_acquire);
  // After a failed sync the page cache may have what the disk has not.
  if (!proof || !unproven_.load() || failures_.load() > 0) return false;
  auto fd = open();
  if (!fd) return false;
  const proto::MerkleShape& shape = proof->shape;
  const LeafFile file = leaves(*proof, proving.maps_directory);
  const uint64_t end = std::min({window.end, shape.device_size, window.begin + kMostFound});
  bool found = false;
  for (uint64_t index = window.begin / shape.granule; index * shape.granule < end; ++index) {
    const ByteRange granule = shape.granule_range(index);
    const uint64_t discards = discards_.load();
    if (present(granule)) continue;
    MutableBytes bytes = scratch(granule.size());
    if (!read_whole(fd.get(), granule, bytes)) break;
    auto leaf = file.read(index, 1);
    if (!leaf) {
      proving.verifier.no_leaves(file, proving.object, leaf.error());
      break;
    }
    if (!proving.verifier.check(file, proving.object, leaf->front(), index, bytes, Verifier::Event::kFound)) break;
    std::lock_guard lock(bits_);
    if (failures_.load(std::memory_order_relaxed) > 0 || discards_.load() != discards) break;
    map_.set_present(granule.begin / kBlockSize, round_up(granule.end, kBlockSize) / kBlockSize);
    touch();
    found = true;
  }
  return found &&
         map_.next_present(window.begin / kBlockSize, window.begin / kBlockSize + 1) == window.begin / kBlockSize;
}

BackingFile::Scrubbed BackingFile::scrub(const Proving& proving, uint64_t from, uint64_t most) {
  Scrubbed out{.next = UINT64_MAX};
  const auto* proof = proof_.load(std::memory_order_acquire);
  if (!proof) return out;
  const proto::MerkleShape& shape = proof->shape;
  const LeafFile file = leaves(*proof, proving.maps_directory);
  auto own = open();
  if (!own) return out;
  // Past the page cache: what the disk has is to be known, and what readers keep warm stays as it is.
  Fd direct(::open(("/proc/self/fd/" + std::to_string(own.get())).c_str(), O_RDONLY | O_DIRECT | O_CLOEXEC));
  for (uint64_t index = from / shape.granule; index < shape.leaves(); ++index) {
    const ByteRange granule = shape.granule_range(index);
    if (out.bytes >= most) {
      out.next = granule.begin;
      return out;
    }
    const ByteRange blocks{granule.begin / kBlockSize, round_up(granule.end, kBlockSize) / kBlockSize};
    const uint64_t discards = discards_.load();
    // What is here and nobody vouches for is proven on the way; then the object may become complete.
    if (!present(granule)) {
      if (find(proving, granule)) out.bytes += granule.size();
      continue;
    }
    // O_DIRECT wants its memory aligned, and whole blocks.
    thread_local std::unique_ptr<std::byte, void (*)(void*)> memory(nullptr, ::free);
    const uint64_t padded = blocks.size() * kBlockSize;
    if (!memory) memory.reset(static_cast<std::byte*>(::aligned_alloc(kBlockSize, proto::kLargestGranule)));
    if (!memory) return out;
    MutableBytes bytes(memory.get(), padded);
    auto read = direct ? pread_some(direct.get(), bytes, granule.begin) : pread_some(own.get(), bytes, granule.begin);
    if (!read && direct) read = pread_some(own.get(), bytes, granule.begin);
    auto leaf = file.read(index, 1);
    if (!leaf) {
      proving.verifier.no_leaves(file, proving.object, leaf.error());
      return out;
    }
    out.bytes += granule.size();
    const uint64_t got = read ? std::min<uint64_t>(*read, granule.size()) : 0;
    if (discards_.load() != discards) continue;  // it may have gone while it was read
    if (proving.verifier.check(file, proving.object, leaf->front(), index, bytes.first(got),
                               Verifier::Event::kScrubbed))
      continue;
    // Whoever reads it now finds out, and asks for it anew; a user daemon that looks finds a hole. A file that the
    // kernel reads past us keeps the bytes until others are written over them: zeros would be worse.
    forget(own.get(), [&] { return std::vector{blocks}; });
    out.damaged.push_back(granule);
  }
  return out;
}

int BackingFile::prove(const std::string& maps_directory, const proto::MerkleProof& proof, const LeafSource& source,
                       Use use) {
  if (presence_ != Presence::kContentMap || !has_identity_) return -EOPNOTSUPP;
  if (const auto* known = proof_.load(std::memory_order_acquire)) {
    if (*known == proof) return 0;
    if (use == Use::kShared) return -EEXIST;
  }
  auto refused = [&](const Error& error) {
    log::error("cachefiles.no_leaves", {{"inode", id().inode}, {"root", proof.root.hex()}, {"why", error.what}});
    return -ENODATA;
  };
  if (!source) return refused({.code = Code::kNotFound, .what = "nobody has them"});
  auto text = source(proof.root);
  if (!text) return refused(text.error());
  auto table = proto::decode_leaf_table(as_bytes(*text));
  if (!table) return refused(table.error());
  if (table->proof != proof) return refused({.code = Code::kCorrupt, .what = "they are of another root"});
  // What was written without a proof may be anything: the bytes stay, and count once they have proven themselves. The
  // map goes first, for it vouches for them.
  const LeafFile file = leaves(proof, maps_directory);
  if (!make_directories(file.path.substr(0, file.path.rfind('/')))) return -EIO;
  const std::string map = map_path(maps_directory);
  ::rename(map.c_str(), (map + kUnprovenSuffix).c_str());
  if (!replace_unsynced(file.path, as_bytes(*text))) return -EIO;
  auto* fresh = new proto::MerkleProof(proof);
  // What is replaced here nobody looks at yet.
  delete proof_.exchange(fresh, std::memory_order_acq_rel);
  guard();
  {
    std::lock_guard saving(save_);
    std::lock_guard lock(bits_);
    discards_.fetch_add(1);
    unproven_.store(map_.clear(0) > 0);
  }
  touch();
  return 0;
}

}  // namespace hydrant::cachefiles
