// One thread that runs tasks in order, a bounded number of them behind whoever submits.
#pragma once

#include <condition_variable>
#include <deque>
#include <mutex>
#include <string>
#include <thread>

#include "base/unique_function.h"

namespace hydrant::image {

// Thread-safe. Waits end when the tasks do: none of them may block for ever.
class Stage {
 public:
  // `name` is at most 15 characters.
  Stage(std::string name, size_t capacity);
  // Drops what is queued, waits for what runs.
  ~Stage();

  // Blocks while the queue is full.
  void submit(UniqueFunction<void()> task);
  // Until everything submitted so far has run.
  void drain();

 private:
  void run();

  const size_t capacity_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<UniqueFunction<void()>> queue_;
  bool running_ = false;
  bool stopping_ = false;
  std::jthread thread_;  // last: starts when the rest stands
};

}  // namespace hydrant::image
