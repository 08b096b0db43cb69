#include "cachefiles/backing_file.h"

#include <fcntl.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/xattr.h>

#include <algorithm>
#include <array>
#include <filesystem>

#include "base/boot_id.h"
#include "base/digest.h"
#include "base/file.h"
#include "base/log.h"
#include "cachefiles/trace.h"
#include "proto/leaf_table.h"

namespace hydrant::cachefiles {
namespace {

using Kind = BackingFile::Survey::Kind;

constexpr std::array<std::byte, kBlockSize> kZeros{};

std::string map_path_of(const std::string& maps_directory, const proto::FileIdentity& identity) {
  std::string hex = to_hex(identity);
  return maps_directory + "/" + hex.substr(0, 2) + "/" + hex.substr(2);
}

// Of a file that the kernel reads by itself: the boot in which it was given out. A mount may live on without us, so
// this must outlive us, too.
constexpr char kReadDirectly[] = "user.hydrant.read-directly";

// Empty when it cannot be known.
const std::string& this_boot() {
  static const std::string id = boot_id().value_or(std::string());
  return id;
}

// 0 or -errno.
int punch_hole(int fd, ByteRange range) {
  const int mode = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
  return ::fallocate(fd, mode, off_t(range.begin), off_t(range.size())) == 0 ? 0 : -errno;
}

}  // namespace

bool BackingFile::is_read_directly(int fd) {
  char text[64];
  const ssize_t size = ::fgetxattr(fd, kReadDirectly, text, sizeof text);
  if (size < 0) return errno != ENODATA;
  return this_boot().empty() || std::string_view(text, static_cast<size_t>(size)) == this_boot();
}

int BackingFile::failed(const char* operation, int err) const {
  return trace::vfs_error(operation, err, {.inode = id().inode});
}

BackingFile::Survey BackingFile::survey(ByteRange window) const {
  if (presence_ == Presence::kSparse) return survey_sparse(window);
  uint64_t begin = window.begin / kBlockSize, end = (window.end + kBlockSize - 1) / kBlockSize;
  uint64_t data = map_.next_present(begin, end);
  if (data > begin) return {Kind::kHole, std::min(window.size(), (data - begin) * kBlockSize), "found-hole"};
  uint64_t hole = map_.next_absent(begin, end);
  return {Kind::kPresent, std::min(window.size(), (hole - begin) * kBlockSize),
          hole < end ? "found-part" : "have-data"};
}

BackingFile::Survey BackingFile::survey_sparse(ByteRange window) const {
  auto seek_failed = [&](int err) {
    failed("seek", err);
    return Survey{Kind::kError, window.size(), "seek-error"};
  };
  if (int err = inject_read()) return seek_failed(err);
  auto fd = open();
  if (!fd) return seek_failed(fd.error());
  off_t data = ::lseek(fd.get(), static_cast<off_t>(window.begin), SEEK_DATA);
  if (data < 0) return errno == ENXIO ? Survey{Kind::kHole, window.size(), "seek-enxio"} : seek_failed(-errno);
  auto first = static_cast<uint64_t>(data);
  if (first > window.begin)
    return {Kind::kHole, std::min(window.size(), round_up(first, block_size_) - window.begin), "found-hole"};
  off_t hole = ::lseek(fd.get(), static_cast<off_t>(window.begin), SEEK_HOLE);
  if (hole < 0) return seek_failed(-errno);
  if (static_cast<uint64_t>(hole) >= window.end) return {Kind::kPresent, window.size(), "have-data"};
  uint64_t whole = round_down(static_cast<uint64_t>(hole), block_size_);
  // Data that ends inside its first block is no data (E8): a zero-length hit would loop the reader.
  if (whole <= window.begin) return {Kind::kHole, window.size(), "found-hole"};
  return {Kind::kPresent, whole - window.begin, "found-part"};
}

bool BackingFile::present(ByteRange range) const {
  if (range.empty()) return true;
  if (presence_ == Presence::kContentMap) {
    uint64_t end = range.end / kBlockSize + (range.end % kBlockSize != 0);
    return map_.next_absent(range.begin / kBlockSize, end) == end;
  }
  ByteRange window = align_outward(range, kBlockSize);
  auto found = survey_sparse(window);
  return found.kind == Kind::kPresent && found.size >= range.end - window.begin;
}

bool BackingFile::complete(uint64_t size) const {
  if (presence_ == Presence::kContentMap) return map_.all_durable(0, (size + kBlockSize - 1) / kBlockSize);
  return !has_unsaved() && present({0, size});
}

int64_t BackingFile::write(Disk& disk, std::span<const Bytes> pieces, uint64_t offset) {
  std::array<struct iovec, 65> parts;
  int count = 0;
  uint64_t size = 0;
  for (Bytes piece : pieces) {
    if (piece.empty()) continue;
    parts[size_t(count++)] = {const_cast<std::byte*>(piece.data()), piece.size()};
    size += piece.size();
  }
  if (size == 0) return 0;
  auto range = make_range(offset, size);
  if (!range || range->end > ContentMap::kBlocks * kBlockSize) return -EFBIG;
  if (int err = inject_write()) return failed("write", err);
  auto fd = open();
  if (!fd) return failed("open", fd.error());
  // The rest of the last block is part of the write: a block is whole or not there at all.
  uint64_t padding = round_up(range->end, kBlockSize) - range->end;
  if (padding) parts[size_t(count++)] = {const_cast<std::byte*>(kZeros.data()), padding};
  for (;;) {
    if (discarding_.load()) std::lock_guard until_it_is_over(save_);
    uint64_t failures = failures_.load(std::memory_order_acquire);
    uint64_t discards = discards_.load();
    if (discarding_.load()) continue;
    ssize_t done = disk.write(fd.get(), parts.data(), count, static_cast<off_t>(offset));
    if (done < 0) return failed("write", static_cast<int>(done));
    uint64_t whole = static_cast<uint64_t>(done) / kBlockSize;
    if (presence_ == Presence::kContentMap) {
      std::lock_guard lock(bits_);
      if (failures_.load(std::memory_order_relaxed) != failures) return -ENOBUFS;
      if (discards_.load() != discards) continue;  // a hole may have been made where this was written
      map_.set_present(offset / kBlockSize, offset / kBlockSize + whole);
    }
    touch();
    return std::min<int64_t>(done, static_cast<int64_t>(size));
  }
}

int BackingFile::mark_read_directly() {
  auto fd = open();
  if (!fd) return failed("open", fd.error());
  const std::string& boot = this_boot();
  if (::fsetxattr(fd.get(), kReadDirectly, boot.data(), boot.size(), 0) != 0) return failed("setxattr", -errno);
  guard();
  return 0;
}

uint64_t BackingFile::discard(uint64_t bytes) {
  if (presence_ != Presence::kContentMap) return 0;
  auto fd = open();
  if (!fd || inject_remove() || is_read_directly(fd.get())) return 0;
  return forget(fd.get(), [&] { return map_.take_unused(bytes / kBlockSize); });
}

uint64_t BackingFile::forget(int fd, const std::function<std::vector<ByteRange>()>& choose) {
  std::lock_guard lock(save_);  // no snapshot from before the holes becomes durable after them
  std::vector<ByteRange> chosen;
  uint64_t freed = 0;
  {
    // Who has begun to write finds another count when he wants to set his bits; who has not, waits.
    std::lock_guard bits(bits_);
    chosen = choose();
    if (chosen.empty()) return 0;
    discarding_ = true;
    discards_.fetch_add(1);
    for (const ByteRange& blocks : chosen) freed += map_.clear(blocks.begin, blocks.end) * kBlockSize;
  }
  // What fails stays on the disk until it is written anew; nobody takes it for present.
  if (!is_read_directly(fd))
    for (const ByteRange& blocks : chosen) (void)punch_hole(fd, {blocks.begin * kBlockSize, blocks.end * kBlockSize});
  discarding_ = false;
  touch();
  return freed;
}

int BackingFile::punch(ByteRange range) {
  if (int err = inject_remove()) return failed("fallocate", err);
  auto fd = open();
  if (!fd) return failed("open", fd.error());
  std::lock_guard lock(save_);  // as for shrink
  map_.clear(range.begin / kBlockSize, range.end / kBlockSize);
  if (int err = punch_hole(fd.get(), range)) return failed("fallocate", err);
  touch();
  return 0;
}

int BackingFile::shrink(uint64_t size) {
  uint64_t rounded = round_up(size, kBlockSize);
  if (int err = inject_remove()) return failed("truncate", err);
  auto fd = open();
  if (!fd) return failed("open", fd.error());
  std::lock_guard lock(save_);  // no snapshot from before the cut becomes durable after it
  struct stat stat;
  if (::fstat(fd.get(), &stat) != 0) return -errno;
  // Bits go before bytes: a reader that still finds the bit finds the bytes, too.
  map_.clear(rounded / kBlockSize);
  if (static_cast<uint64_t>(stat.st_size) > rounded && ::ftruncate(fd.get(), static_cast<off_t>(rounded)) != 0)
    return failed("truncate", -errno);
  if (size < rounded && map_.next_present(size / kBlockSize, rounded / kBlockSize) < rounded / kBlockSize)
    if (::pwrite(fd.get(), kZeros.data(), rounded - size, static_cast<off_t>(size)) < 0) return failed("write", -errno);
  touch();
  return 0;
}

int BackingFile::make_identity() {
  if (presence_ != Presence::kContentMap) return 0;
  if (::getrandom(identity_.data(), identity_.size(), 0) != static_cast<ssize_t>(identity_.size())) return -EIO;
  if (int err = inject_write()) return err;
  if (::fsetxattr(open().get(), proto::kIdentityLabelName, identity_.data(), identity_.size(), 0) != 0) return -errno;
  has_identity_ = true;
  return 0;
}

std::string BackingFile::map_path(const std::string& maps_directory) const {
  return map_path_of(maps_directory, identity_);
}

void BackingFile::drop_bits_over_holes(uint64_t file_size) {
  // Only the tail is cleared at once; the holes between are few and found by walking the extents.
  uint64_t at = 0;
  std::vector<ByteRange> data;
  auto fd = open();
  while (at < file_size) {
    off_t begin = ::lseek(fd.get(), static_cast<off_t>(at), SEEK_DATA);
    if (begin < 0) break;
    off_t end = ::lseek(fd.get(), begin, SEEK_HOLE);
    if (end < 0) break;
    data.push_back({static_cast<uint64_t>(begin), static_cast<uint64_t>(end)});
    at = static_cast<uint64_t>(end);
  }
  auto leaves = map_.snapshot();
  map_.clear(0);
  for (const auto& extent : data) {
    uint64_t end = extent.end / kBlockSize;
    for (uint64_t block = (extent.begin + kBlockSize - 1) / kBlockSize; block < end;) {
      uint64_t leaf = block / proto::kMapLeafBlocks;
      auto found = std::lower_bound(leaves.begin(), leaves.end(), leaf,
                                    [](const auto& a, uint64_t index) { return a.index < index; });
      if (found == leaves.end()) break;
      if (found->index != leaf) {
        block = found->index * proto::kMapLeafBlocks;
        continue;
      }
      for (uint64_t stop = std::min(end, (leaf + 1) * proto::kMapLeafBlocks); block < stop; ++block) {
        uint64_t bit = block % proto::kMapLeafBlocks;
        if (found->bits[bit / 64] >> (bit % 64) & 1) map_.set_present(block, block + 1);
      }
    }
  }
}

void BackingFile::load_proof(const std::string& maps_directory, uint64_t object_size, Trust trust) {
  const std::string path = map_path(maps_directory) + kLeavesSuffix;
  auto fd = open_file(path, O_RDONLY | O_NOFOLLOW);
  if (!fd) return;
  struct stat stat;
  Buffer header(proto::kLeafTableHeader);
  auto read = ::fstat(fd->get(), &stat) == 0 ? pread_some(fd->get(), header, 0) : fail_sys(errno, path);
  auto proof = read ? proto::decode_leaf_header(header, static_cast<uint64_t>(stat.st_size)) : fail(read.error());
  const bool sound =
      proof && proof->shape.device_size == object_size && (trust.clean || LeafFile{*proof, path}.sound());
  if (!trust.proofs || !sound) {
    // What is written from now on is not checked against it.
    if (trust.proofs) log::warn("cachefiles.leaves_refused", {{"inode", id().inode}});
    ::unlink(path.c_str());
    return;
  }
  proof_.store(new proto::MerkleProof(*proof), std::memory_order_release);
  guarded_ = true;
}

void BackingFile::load_map(const std::string& maps_directory, uint64_t object_size, Trust trust) {
  if (presence_ != Presence::kContentMap) return;
  auto fd = open();
  if (is_read_directly(fd.get())) guarded_ = true;
  ssize_t got = ::fgetxattr(fd.get(), proto::kIdentityLabelName, identity_.data(), identity_.size());
  if (got != static_cast<ssize_t>(identity_.size())) {
    // A file from elsewhere, or of the sparse mode: it gets an identity, and counts as empty.
    if (int err = make_identity()) log::warn("cachefiles.identity_failed", {{"errno", -err}});
    return;
  }
  has_identity_ = true;
  load_proof(maps_directory, object_size, trust);
  struct stat stat;
  if (::fstat(fd.get(), &stat) != 0) return;
  const std::string path = map_path(maps_directory);
  if (proof() && ::access((path + kUnprovenSuffix).c_str(), F_OK) == 0) {
    unproven_ = true;
    // What is hashed is to be what the disk has: a page may be clean because its write-back failed.
    ::posix_fadvise(fd.get(), 0, 0, POSIX_FADV_DONTNEED);
  }
  auto file_size = static_cast<uint64_t>(stat.st_size);
  size_t limit = proto::content_map_file_size(file_size / proto::kMapLeafBytes + 1);
  auto text = read_file(path, limit);
  if (!text) return;
  auto map = proto::decode_content_map(as_bytes(*text));
  if (!map || map->inode != id().inode || map->identity != identity_ || map->object_size != object_size ||
      map->file_size > file_size) {
    log::warn("cachefiles.map_refused", {{"inode", id().inode}, {"why", map ? "another file" : map.error().what}});
    return;
  }
  generation_ = map->generation;
  for (const auto& leaf : map->leaves)
    for (unsigned bit = 0; bit < proto::kMapLeafBlocks; ++bit)
      if (leaf.bits[bit / 64] >> (bit % 64) & 1) {
        uint64_t block = leaf.index * proto::kMapLeafBlocks + bit;
        map_.set_present(block, block + 1);
      }
  drop_bits_over_holes(file_size);
  map_.mark_durable(map_.snapshot());
}

int BackingFile::save_map(Disk& disk, const std::string& maps_directory, const std::function<uint64_t()>& object_size) {
  saving_.store(false);
  if (!has_unsaved()) return 0;
  auto fd = open();
  if (!fd) return fd.error();
  std::lock_guard lock(save_);
  if (!descriptor_.take_dirty()) return 0;
  uint64_t size = object_size();
  auto leaves = map_.snapshot();
  if (int err = disk.sync_data(fd.get())) {
    // After a failed sync the kernel forgets that the pages were dirty: what is not proven durable is fetched again.
    {
      std::lock_guard forgetting(bits_);
      failures_.fetch_add(1, std::memory_order_release);
      map_.forget_volatile();
    }
    touch();
    return failed("sync", err);
  }
  if (presence_ == Presence::kSparse || !has_identity_) return 0;
  struct stat stat;
  if (::fstat(fd.get(), &stat) != 0) {
    touch();
    return -errno;
  }
  proto::ContentMapFile file;
  file.generation = ++generation_;
  file.inode = id().inode;
  file.object_size = size;
  file.file_size = static_cast<uint64_t>(stat.st_size);
  file.identity = identity_;
  file.leaves = std::move(leaves);
  std::string path = map_path(maps_directory);
  auto made = make_directories(path.substr(0, path.rfind('/')));
  if (made) made = disk.replace_file(path, proto::encode_content_map(file));
  if (!made) {
    touch();
    log::warn("cachefiles.map_not_saved", {{"inode", id().inode}, {"why", made.error().what}});
    return made.error().sys ? -made.error().sys : -EIO;
  }
  map_.mark_durable(file.leaves);
  if (unproven_ && complete(size)) {
    ::unlink((path + kUnprovenSuffix).c_str());
    unproven_ = false;
  }
  return 0;
}

namespace {

void delete_all_of(const std::string& map) {
  ::unlink(map.c_str());
  ::unlink((map + kUnprovenSuffix).c_str());
  ::unlink((map + kLeavesSuffix).c_str());
}

}  // namespace

void BackingFile::delete_map(const std::string& maps_directory) const {
  if (has_identity_) delete_all_of(map_path(maps_directory));
}

// Without a sync: where this is lost, the next end was unclean, too.
int doubt_maps(const std::string& maps_directory) {
  std::error_code error;
  for (std::filesystem::recursive_directory_iterator entry(maps_directory, error), end; !error && entry != end;
       entry.increment(error)) {
    auto map = entry->path();
    if (map.extension() != kLeavesSuffix) continue;
    map.replace_extension();
    const std::string doubted = map.string() + kUnprovenSuffix;
    if (::rename(map.c_str(), doubted.c_str()) == 0) continue;
    // There may be no map yet of what is on the disk.
    if (errno != ENOENT || !open_file(doubted, O_WRONLY | O_CREAT)) return -EIO;
  }
  return -error.value();
}

void delete_map_of(int fd, const std::string& maps_directory) {
  proto::FileIdentity identity;
  if (::fgetxattr(fd, proto::kIdentityLabelName, identity.data(), identity.size()) == ssize_t(identity.size()))
    delete_all_of(map_path_of(maps_directory, identity));
}

}  // namespace hydrant::cachefiles
