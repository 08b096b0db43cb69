#include "image/index/fringes.h"

#include <utility>

namespace hydrant::image {

void Fringes::keep(const Key& key, Fringe fringe) {
  const uint64_t size = fringe.bytes.size();
  if (size == 0 || size > budget_ / 4) return;
  auto shared = std::make_shared<const Fringe>(std::move(fringe));
  Lock lock(mutex_);
  if (auto old = entries_.find(key); old != entries_.end()) drop(lock, old);
  while (bytes_ + size > budget_) drop(lock, entries_.find(ages_.front()));
  entries_[key] = {std::move(shared), ages_.insert(ages_.end(), key)};
  bytes_ += size;
}

std::shared_ptr<const Fringe> Fringes::find(const Key& key) const {
  Lock lock(mutex_);
  auto found = entries_.find(key);
  return found == entries_.end() ? nullptr : found->second.fringe;
}

void Fringes::forget(const Key& key) {
  Lock lock(mutex_);
  if (auto found = entries_.find(key); found != entries_.end()) drop(lock, found);
}

void Fringes::forget_layout(const void* layout) {
  Lock lock(mutex_);
  auto entry = entries_.lower_bound({layout, 0, Side::kHead});
  while (entry != entries_.end() && entry->first.layout == layout) drop(lock, entry++);
}

uint64_t Fringes::bytes() const {
  Lock lock(mutex_);
  return bytes_;
}

void Fringes::drop(const Lock&, Entries::iterator entry) {
  bytes_ -= entry->second.fringe->bytes.size();
  ages_.erase(entry->second.age);
  entries_.erase(entry);
}

}  // namespace hydrant::image
