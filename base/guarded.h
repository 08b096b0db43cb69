// A value that can be reached only through its lock. Steps that need the lock take the scope as a parameter.
#pragma once

#include <mutex>
#include <utility>

namespace hydrant {

template <class T>
class Guarded {
 public:
  class Lock {
   public:
    T* operator->() { return value_; }
    T& operator*() { return *value_; }
    std::unique_lock<std::mutex>& native() { return lock_; }  // for condition variables

   private:
    friend class Guarded;
    Lock(std::mutex& mutex, T* value) : lock_(mutex), value_(value) {}
    std::unique_lock<std::mutex> lock_;
    T* value_;
  };

  Guarded() = default;
  explicit Guarded(T value) : value_(std::move(value)) {}
  Lock lock() { return Lock(mutex_, &value_); }

 private:
  std::mutex mutex_;
  T value_{};
};

}  // namespace hydrant
