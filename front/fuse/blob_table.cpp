#include "front/fuse/blob_table.h"

#include <algorithm>

#include "base/byte_range.h"

namespace hydrant::front {

BlobTable::~BlobTable() {
  for (auto& segment : segments_) delete segment.load();
}

std::atomic<Blob*>* BlobTable::slot(uint64_t node) const {
  if (node < kFirstNode || node - kFirstNode >= kCapacity) return nullptr;
  Segment* segment = segments_[(node - kFirstNode) / kSegmentSize].load(std::memory_order_acquire);
  return segment ? &(*segment)[(node - kFirstNode) % kSegmentSize] : nullptr;
}

Blob* BlobTable::find(uint64_t node) const {
  auto* at = slot(node);
  return at ? at->load(std::memory_order_acquire) : nullptr;
}

std::atomic<Blob*>& BlobTable::make_slot(const Lock&, uint64_t node) {
  auto& segment = segments_[(node - kFirstNode) / kSegmentSize];
  if (!segment.load(std::memory_order_relaxed)) segment.store(new Segment{}, std::memory_order_release);
  return *slot(node);
}

void BlobTable::adopt(const proto::HandedBlob& handed, std::shared_ptr<cachefiles::Cookie> cookie) {
  Lock lock(mutex_);
  auto blob = std::make_shared<Blob>();
  blob->cookie = std::move(cookie);
  blob->size = handed.size;
  blob->file_size = round_up(handed.size, 4096);
  blob->generation = handed.generation;
  blob->named = handed.named;
  blob->lookups = handed.lookups;
  blob->opens = handed.opens;
  generation_ = std::max(generation_, handed.generation);
  make_slot(lock, handed.node).store(blob.get(), std::memory_order_release);
  if (handed.named) names_.emplace(handed.name, handed.node);
  blobs_.emplace(handed.node, std::move(blob));
}

Result<> BlobTable::add(const std::string& name, std::shared_ptr<cachefiles::Cookie> cookie, uint64_t size,
                        const std::string& volume, const std::string& id) {
  if (name.empty() || name.size() > 255 || name == "." || name == ".." ||
      name.find_first_of(std::string_view("/\0", 2)) != std::string::npos)
    return fail(Code::kInvalid, "not a name for a blob file: " + name);
  if (journal_ && (volume.empty() || volume.size() > 255 || id.empty() || id.size() > 255))
    return fail(Code::kInvalid, "blob " + name + " has no keys that a successor could find it by");
  if (size > uint64_t(INT64_MAX) - 4096) return fail(Code::kInvalid, "blob " + name + " is too large");

  Lock lock(mutex_);
  if (names_.contains(name)) return fail(Code::kExists, "blob " + name);
  // Lowest free node id: the map is sorted, so the first gap is it.
  uint64_t node = kFirstNode;
  for (auto& [used, blob] : blobs_) {
    if (used != node) break;
    ++node;
  }
  if (node - kFirstNode >= kCapacity) return fail(Code::kNoSpace, "too many blob files");

  auto blob = std::make_shared<Blob>();
  blob->cookie = std::move(cookie);
  blob->size = size;
  blob->file_size = round_up(size, 4096);
  blob->generation = ++generation_;
  blob->touches = std::make_unique<Touches>(size, Clock::system().now());
  if (journal_)
    journal_->put(
        {.node = node, .generation = blob->generation, .size = size, .name = name, .volume = volume, .id = id});
  make_slot(lock, node).store(blob.get(), std::memory_order_release);
  names_.emplace(name, node);
  blobs_.emplace(node, std::move(blob));
  return {};
}

bool BlobTable::remove(const std::string& name) {
  std::shared_ptr<Blob> last;  // dropped after the lock: a cookie's end is none of our lock's business
  Lock lock(mutex_);
  auto at = names_.find(name);
  if (at == names_.end()) return false;
  uint64_t node = at->second;
  names_.erase(at);
  last = blobs_.at(node);
  last->named = false;
  if (journal_) journal_->forget_name(node);
  drop_if_unused(lock, node);
  return true;
}

void BlobTable::clear() {
  std::map<uint64_t, std::shared_ptr<Blob>> all;
  Lock lock(mutex_);
  for (auto& [node, blob] : blobs_) slot(node)->store(nullptr, std::memory_order_release);
  names_.clear();
  all.swap(blobs_);
}

void BlobTable::drop_if_unused(const Lock&, uint64_t node) {
  auto at = blobs_.find(node);
  const Blob& blob = *at->second;
  if (blob.named || blob.lookups || blob.opens) return;
  if (journal_) journal_->erase(node);
  slot(node)->store(nullptr, std::memory_order_release);
  blobs_.erase(at);
}

std::vector<Touch> BlobTable::touches(const std::string& name) const {
  Lock lock(mutex_);
  auto at = names_.find(name);
  if (at == names_.end()) return {};
  const Blob& blob = *blobs_.at(at->second);
  return blob.touches ? blob.touches->list() : std::vector<Touch>();
}

BlobTable::Entry BlobTable::lookup(const std::string& name) {
  Lock lock(mutex_);
  auto at = names_.find(name);
  if (at == names_.end()) return {};
  Blob* blob = find(at->second);
  ++blob->lookups;
  if (journal_) journal_->set_lookups(at->second, blob->lookups);
  return {at->second, blob};
}

void BlobTable::forget(uint64_t node, uint64_t count) {
  std::shared_ptr<Blob> last;
  Lock lock(mutex_);
  auto at = blobs_.find(node);
  if (at == blobs_.end()) return;
  last = at->second;
  last->lookups -= std::min(count, last->lookups);
  if (journal_) journal_->set_lookups(node, last->lookups);
  drop_if_unused(lock, node);
}

Blob* BlobTable::open(uint64_t node) {
  Lock lock(mutex_);
  Blob* blob = find(node);
  if (!blob) return nullptr;
  ++blob->opens;
  if (journal_) journal_->set_opens(node, blob->opens);
  return blob;
}

void BlobTable::release(uint64_t node) {
  std::shared_ptr<Blob> last;
  Lock lock(mutex_);
  auto at = blobs_.find(node);
  if (at == blobs_.end() || at->second->opens == 0) return;
  last = at->second;
  --last->opens;
  if (journal_) journal_->set_opens(node, last->opens);
  drop_if_unused(lock, node);
}

bool BlobTable::next(uint64_t node, Entry& entry, std::string& name) const {
  Lock lock(mutex_);
  // Listings are for people: a scan of the names is enough.
  entry = {};
  for (auto& [each, id] : names_) {
    if (id < node || (entry.node && id > entry.node)) continue;
    entry = {id, find(id)};
    name = each;
  }
  return entry.node != 0;
}

size_t BlobTable::count() const {
  Lock lock(mutex_);
  return names_.size();
}

}  // namespace hydrant::front
