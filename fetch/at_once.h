// Runs a few things side by side in this thread and helpers, and returns when all have ended.
#pragma once

#include <algorithm>
#include <atomic>
#include <stop_token>
#include <thread>
#include <vector>

namespace hydrant::fetch {

// `run(item)` for each, at most `most` at a time; none is begun after a stop.
template <class Item, class Run>
void at_once(const std::vector<Item>& items, size_t most, std::stop_token stop, Run run) {
  std::atomic<size_t> next = 0;
  auto some = [&] {
    for (size_t i; !stop.stop_requested() && (i = next++) < items.size();) run(items[i]);
  };
  std::vector<std::jthread> helpers;
  for (size_t i = 1; i < std::min(items.size(), most); ++i) helpers.emplace_back(some);
  some();
}

}  // namespace hydrant::fetch
