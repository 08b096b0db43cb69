#include "cachefiles/verifier.h"

#include <fcntl.h>

#include <algorithm>
#include <cstring>

#include "base/file.h"
#include "base/log.h"
#include "cachefiles/object.h"
#include "proto/leaf_table.h"

namespace hydrant::cachefiles {

uint64_t Pieces::size() const {
  uint64_t size = 0;
  for (Bytes piece : pieces_) size += piece.size();
  return size;
}

void Pieces::copy(uint64_t begin, MutableBytes out) const {
  for (Bytes piece : pieces_) {
    if (begin >= piece.size()) {
      begin -= piece.size();
      continue;
    }
    Bytes part = piece.subspan(begin, std::min<uint64_t>(out.size(), piece.size() - begin));
    // Not std::ranges::copy, which moves byte after byte here (GCC 12).
    std::memcpy(out.data(), part.data(), part.size());
    out = out.subspan(part.size());
    begin = 0;
    if (out.empty()) return;
  }
}

std::optional<Buffer> PartialGranules::add(const proto::FileIdentity& file, ByteRange granule, uint64_t at,
                                           Bytes piece) {
  std::lock_guard lock(mutex_);
  auto found = std::ranges::find_if(partials_, [&](const Partial& each) {
    return each.granule == granule && each.file == file && each.bytes.size() == granule.size();
  });
  if (found == partials_.end()) {
    const size_t blocks = (granule.size() + kBlockSize - 1) / kBlockSize;
    partials_.push_back({file, granule, Buffer(granule.size()), std::vector<bool>(blocks), blocks});
    found = std::prev(partials_.end());
    for (bytes_ += granule.size(); bytes_ > kMost && partials_.size() > 1; partials_.pop_front())
      bytes_ -= partials_.front().bytes.size();
  }
  const uint64_t begin = at - granule.begin;
  std::memcpy(found->bytes.data() + begin, piece.data(), piece.size());
  for (uint64_t block = begin / kBlockSize; block * kBlockSize < begin + piece.size(); ++block)
    if (!found->there[block]) {
      found->there[block] = true;
      --found->missing;
    }
  if (found->missing > 0) return std::nullopt;
  Buffer whole = std::move(found->bytes);
  bytes_ -= whole.size();
  partials_.erase(found);
  return whole;
}

Result<std::vector<Digest>> LeafFile::read(uint64_t first, uint64_t count) const {
  HYDRANT_TRY(Fd fd, open_file(path, O_RDONLY | O_NOFOLLOW));
  std::vector<Digest> leaves(count);
  HYDRANT_TRY_VOID(pread_exact(fd.get(), std::as_writable_bytes(std::span(leaves)),
                               proto::kLeafTableHeader + first * sizeof(Digest)));
  return leaves;
}

bool LeafFile::sound() const {
  auto text = read_file(path, proto::leaf_table_size(proof.shape));
  auto table = text ? proto::decode_leaf_table(as_bytes(*text)) : fail(text.error());
  return table && table->proof == proof;
}

bool Verifier::check(const LeafFile& file, const Object& object, const Digest& leaf, uint64_t index, Bytes bytes,
                     Event event) {
  ++(event == Event::kWritten ? counters_.verified : event == Event::kFound ? counters_.found : counters_.scrubbed);
  if (proto::leaf_digest(bytes) == leaf) return true;
  ++(event == Event::kWritten ? counters_.refused : counters_.damaged);
  if (!first_time(file.path, index)) return false;
  const ByteRange range = file.proof.shape.granule_range(index);
  // Bits of the table may have flipped as well as those of the data.
  const bool sound = file.sound();
  log::error(event == Event::kWritten ? "cachefiles.granule_refused" : "cachefiles.granule_damaged",
             {{"name", object.name()},
              {"granule", index},
              {"offset", range.begin},
              {"length", range.size()},
              {"root", file.proof.root.hex()},
              {"why", sound ? "the bytes do not match their leaf" : "its table of leaves is damaged: mount it anew"}});
  if (!sound) ::unlink(file.path.c_str());
  return false;
}

void Verifier::no_leaves(const LeafFile& file, const Object& object, const Error& error) {
  if (first_time(file.path, UINT64_MAX))
    log::error("cachefiles.no_leaves", {{"name", object.name()}, {"why", error.what}, {"way_out", "mount it anew"}});
}

bool Verifier::first_time(const std::string& path, uint64_t index) {
  std::lock_guard lock(mutex_);
  if (named_.size() >= kMostNamed) named_.erase(named_.begin());
  return named_.emplace(path, index).second;
}

}  // namespace hydrant::cachefiles
