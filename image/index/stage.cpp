#include "image/index/stage.h"

#include <pthread.h>

namespace hydrant::image {

Stage::Stage(std::string name, size_t capacity) : capacity_(capacity), thread_([this] { run(); }) {
  pthread_setname_np(thread_.native_handle(), name.c_str());
}

Stage::~Stage() {
  std::lock_guard lock(mutex_);
  stopping_ = true;
  queue_.clear();
  changed_.notify_all();
}

void Stage::submit(UniqueFunction<void()> task) {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return queue_.size() < capacity_; });
  queue_.push_back(std::move(task));
  changed_.notify_all();
}

void Stage::drain() {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return queue_.empty() && !running_; });
}

void Stage::run() {
  std::unique_lock lock(mutex_);
  while (true) {
    changed_.wait(lock, [&] { return stopping_ || !queue_.empty(); });
    if (stopping_) return;
    auto task = std::move(queue_.front());
    queue_.pop_front();
    running_ = true;
    changed_.notify_all();
    lock.unlock();
    task();
    task = {};  // what it holds is freed outside the lock
    lock.lock();
    running_ = false;
    changed_.notify_all();
  }
}

}  // namespace hydrant::image
