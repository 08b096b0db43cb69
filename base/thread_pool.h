// A fixed number of threads and a queue for blocking work.
#pragma once

#include <condition_variable>
#include <deque>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "base/unique_function.h"

namespace hydrant {

// Thread-safe. The destructor runs what is queued, then joins. Callers bound the queue: each of them submits at most
// one task per request it has admitted.
class ThreadPool {
 public:
  // `name` is at most 15 characters: it shows in ps and gdb.
  ThreadPool(std::string name, unsigned threads);
  ~ThreadPool();

  void submit(UniqueFunction<void()> task);

 private:
  void run();

  std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<UniqueFunction<void()>> queue_;
  bool stopping_ = false;
  std::vector<std::jthread> threads_;
};

}  // namespace hydrant
