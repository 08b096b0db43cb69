#include "base/thread_pool.h"

#include <pthread.h>

namespace hydrant {

ThreadPool::ThreadPool(std::string name, unsigned threads) {
  threads_.reserve(threads);
  for (unsigned i = 0; i < threads; ++i)
    threads_.emplace_back([this, name] {
      pthread_setname_np(pthread_self(), name.c_str());
      run();
    });
}

ThreadPool::~ThreadPool() {
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  wake_.notify_all();
}

void ThreadPool::submit(UniqueFunction<void()> task) {
  // Notified with the lock held: when the task has run, its owner may destroy the pool at once.
  std::lock_guard lock(mutex_);
  queue_.push_back(std::move(task));
  wake_.notify_one();
}

void ThreadPool::run() {
  std::unique_lock lock(mutex_);
  for (;;) {
    wake_.wait(lock, [&] { return stopping_ || !queue_.empty(); });
    if (queue_.empty()) return;
    auto task = std::move(queue_.front());
    queue_.pop_front();
    lock.unlock();
    task();
    task = {};
    lock.lock();
  }
}

}  // namespace hydrant
