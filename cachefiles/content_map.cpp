#include "cachefiles/content_map.h"

#include <algorithm>
#include <bit>

#include "base/check.h"

namespace hydrant::cachefiles {
namespace {

using proto::kMapLeafBlocks;
using proto::kMapLeafWords;

// The bits of word `word` (of a leaf that starts at block `start`) inside [begin, end).
uint64_t mask_of(uint64_t start, unsigned word, uint64_t begin, uint64_t end) {
  uint64_t low = start + word * 64;
  uint64_t mask = ~uint64_t{0};
  if (begin > low) mask &= begin - low >= 64 ? 0 : ~uint64_t{0} << (begin - low);
  if (end < low + 64) mask &= end <= low ? 0 : ~uint64_t{0} >> (64 - (end - low));
  return mask;
}

}  // namespace

ContentMap::~ContentMap() {
  delete first_.load();
  Root* root = root_.load();
  if (!root) return;
  for (auto& slot : root->branches) {
    Branch* branch = slot.load();
    if (!branch) continue;
    for (auto& leaf : branch->leaves) delete leaf.load();
    delete branch;
  }
  delete root;
}

const ContentMap::Leaf* ContentMap::find(uint64_t leaf) const {
  if (leaf == 0) return first_.load(std::memory_order_acquire);
  const Root* root = leaf < proto::kMapLeafLimit ? root_.load(std::memory_order_acquire) : nullptr;
  const Branch* branch = root ? root->branches[leaf / kFanout].load(std::memory_order_acquire) : nullptr;
  return branch ? branch->leaves[leaf % kFanout].load(std::memory_order_acquire) : nullptr;
}

ContentMap::Leaf* ContentMap::obtain(uint64_t leaf) {
  auto make = [](auto& slot) {
    auto* there = slot.load(std::memory_order_acquire);
    if (!there) {
      there = new std::remove_pointer_t<decltype(there)>();
      slot.store(there, std::memory_order_release);
    }
    return there;
  };
  if (auto* there = const_cast<Leaf*>(find(leaf))) return there;
  HYDRANT_CHECK(leaf < proto::kMapLeafLimit, "writers refuse offsets past the map's end");
  std::lock_guard lock(grow_);
  if (leaf == 0) return make(first_);
  return make(make(make(root_)->branches[leaf / kFanout])->leaves[leaf % kFanout]);
}

template <class Visit>
void ContentMap::visit(Visit&& visit) const {
  if (auto* leaf = find(0)) visit(uint64_t{0}, const_cast<Leaf&>(*leaf));
  const Root* root = root_.load(std::memory_order_acquire);
  if (!root) return;
  for (uint64_t i = 0; i < kFanout; ++i) {
    const Branch* branch = root->branches[i].load(std::memory_order_acquire);
    if (!branch) continue;
    for (uint64_t j = 0; j < kFanout; ++j)
      if (Leaf* leaf = branch->leaves[j].load(std::memory_order_acquire)) visit(i * kFanout + j, *leaf);
  }
}

uint64_t ContentMap::next(uint64_t begin, uint64_t end, bool wanted) const {
  for (uint64_t at = begin; at < end;) {
    uint64_t index = at / kMapLeafBlocks, start = index * kMapLeafBlocks;
    const Leaf* leaf = find(index);
    if (!leaf) {
      if (!wanted) return at;
      uint64_t step = kMapLeafBlocks;  // a missing branch is skipped whole
      if (index >= proto::kMapLeafLimit) return end;
      const Root* root = root_.load(std::memory_order_acquire);
      if (index > 0 && !root) return end;
      if (index > 0 && !root->branches[index / kFanout].load(std::memory_order_acquire)) step *= kFanout;
      at = round_down(at, step) + step;
      continue;
    }
    for (auto word = static_cast<unsigned>((at - start) / 64); word < kMapLeafWords; ++word) {
      uint64_t bits = leaf->present[word].load(std::memory_order_acquire);  // pairs with the release of set_present
      uint64_t hits = (wanted ? bits : ~bits) & mask_of(start, word, at, end);
      if (hits) return start + word * 64 + std::countr_zero(hits);
      if (start + (word + 1) * 64 >= end) return end;
    }
    at = start + kMapLeafBlocks;
  }
  return end;
}

uint64_t ContentMap::next_present(uint64_t begin, uint64_t end) const { return next(begin, end, true); }
uint64_t ContentMap::next_absent(uint64_t begin, uint64_t end) const { return next(begin, end, false); }

bool ContentMap::all_durable(uint64_t begin, uint64_t end) const {
  for (uint64_t at = begin; at < end;) {
    uint64_t index = at / kMapLeafBlocks, start = index * kMapLeafBlocks;
    const Leaf* leaf = find(index);
    if (!leaf) return false;
    for (unsigned word = 0; word < kMapLeafWords; ++word) {
      uint64_t mask = mask_of(start, word, at, end);
      if ((leaf->durable[word].load(std::memory_order_acquire) & mask) != mask) return false;
    }
    at = start + kMapLeafBlocks;
  }
  return true;
}

namespace {

// The words of a leaf, a bit each, that hold blocks of [begin, end); both are inside the leaf, counted from its start.
uint64_t words_of(uint64_t begin, uint64_t end) {
  const uint64_t first = begin / 64, last = (end - 1) / 64;
  return (~uint64_t{0} << first) & (~uint64_t{0} >> (63 - last));
}

}  // namespace

void ContentMap::note_use(uint64_t begin, uint64_t end) const {
  for (uint64_t at = begin; at < end;) {
    const uint64_t index = at / kMapLeafBlocks, start = index * kMapLeafBlocks;
    const uint64_t stop = std::min(end, start + kMapLeafBlocks);
    if (const Leaf* leaf = find(index)) {
      const uint64_t words = words_of(at - start, stop - start);
      // Mostly they are set already, and the line stays shared.
      if (words & ~leaf->used.load(std::memory_order_relaxed)) leaf->used.fetch_or(words, std::memory_order_relaxed);
    }
    at = stop;
  }
}

std::vector<ByteRange> ContentMap::take_unused(uint64_t most) {
  std::vector<ByteRange> out;
  uint64_t taken = 0;
  visit([&](uint64_t index, Leaf& leaf) {
    const uint64_t used = leaf.used.exchange(0, std::memory_order_relaxed);
    for (unsigned word = 0; word < kMapLeafWords && taken < most; ++word) {
      const auto blocks = std::popcount(leaf.present[word].load(std::memory_order_relaxed));
      if (blocks == 0 || used >> word & 1) continue;
      taken += static_cast<uint64_t>(blocks);
      const uint64_t begin = index * kMapLeafBlocks + word * kPortion;
      if (!out.empty() && out.back().end == begin) {
        out.back().end += kPortion;
      } else {
        out.push_back({begin, begin + kPortion});
      }
    }
  });
  return out;
}

void ContentMap::set_present(uint64_t begin, uint64_t end) {
  for (uint64_t at = begin; at < end;) {
    uint64_t index = at / kMapLeafBlocks, start = index * kMapLeafBlocks;
    uint64_t stop = std::min(end, start + kMapLeafBlocks);
    Leaf* leaf = obtain(index);
    for (auto word = static_cast<unsigned>((at - start) / 64); start + word * 64 < stop; ++word) {
      uint64_t mask = mask_of(start, word, at, stop);
      uint64_t before = leaf->present[word].fetch_or(mask, std::memory_order_release);
      present_blocks_.fetch_add(std::popcount(mask & ~before), std::memory_order_relaxed);
    }
    leaf->used.fetch_or(words_of(at - start, stop - start), std::memory_order_relaxed);
    at = stop;
  }
}

uint64_t ContentMap::clear(uint64_t begin, uint64_t end) {
  std::lock_guard lock(grow_);
  uint64_t cleared = 0;
  visit([&](uint64_t index, Leaf& leaf) {
    uint64_t start = index * kMapLeafBlocks;
    if (start + kMapLeafBlocks <= begin || start >= end) return;
    for (unsigned word = 0; word < kMapLeafWords; ++word) {
      uint64_t mask = mask_of(start, word, begin, std::min(end, start + kMapLeafBlocks));
      uint64_t present = leaf.present[word].fetch_and(~mask) & mask;
      uint64_t durable = leaf.durable[word].fetch_and(~mask) & mask;
      present_blocks_.fetch_sub(std::popcount(present), std::memory_order_relaxed);
      durable_blocks_.fetch_sub(std::popcount(durable), std::memory_order_relaxed);
      cleared += static_cast<uint64_t>(std::popcount(present));
    }
  });
  return cleared;
}

void ContentMap::forget_volatile() {
  std::lock_guard lock(grow_);
  visit([&](uint64_t, Leaf& leaf) {
    for (unsigned word = 0; word < kMapLeafWords; ++word) {
      uint64_t durable = leaf.durable[word].load();
      uint64_t before = leaf.present[word].fetch_and(durable);
      present_blocks_.fetch_sub(std::popcount(before & ~durable), std::memory_order_relaxed);
    }
  });
}

std::vector<proto::ContentMapLeaf> ContentMap::snapshot() const {
  std::vector<proto::ContentMapLeaf> out;
  visit([&](uint64_t index, Leaf& leaf) {
    proto::ContentMapLeaf copy;
    copy.index = index;
    uint64_t any = 0;
    for (unsigned word = 0; word < kMapLeafWords; ++word)
      any |= copy.bits[word] = leaf.present[word].load(std::memory_order_acquire);
    if (any) out.push_back(copy);
  });
  return out;
}

void ContentMap::mark_durable(const std::vector<proto::ContentMapLeaf>& leaves) {
  std::lock_guard lock(grow_);
  for (const auto& from : leaves) {
    auto* leaf = const_cast<Leaf*>(find(from.index));
    for (unsigned word = 0; leaf && word < kMapLeafWords; ++word) {
      uint64_t bits = from.bits[word] & leaf->present[word].load();
      uint64_t before = leaf->durable[word].fetch_or(bits, std::memory_order_release);
      durable_blocks_.fetch_add(std::popcount(bits & ~before), std::memory_order_relaxed);
    }
  }
}

}  // namespace hydrant::cachefiles
