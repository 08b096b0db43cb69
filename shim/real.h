// libc's own functions, found behind ours.
#pragma once

#include <dlfcn.h>

#include <atomic>

namespace hydrant::shim {

// One function. Looked up when it is first called: another library's constructor may call us before ours ran. Two
// threads that look up at once find the same.
template <class Function>
class Real {
 public:
  explicit constexpr Real(const char* name) : name_(name) {}
  Function* get() {
    void* found = function_.load(std::memory_order_relaxed);
    if (!found) {
      found = ::dlsym(RTLD_NEXT, name_);
      function_.store(found, std::memory_order_relaxed);
    }
    return reinterpret_cast<Function*>(found);
  }
  template <class... Argument>
  auto operator()(Argument... argument) {
    return get()(argument...);
  }

 private:
  const char* const name_;
  std::atomic<void*> function_{nullptr};
};

// HYDRANT_REAL(read): `real_read`, of the type that the header declares.
#define HYDRANT_REAL(name) constinit Real<decltype(::name)> real_##name(#name)

}  // namespace hydrant::shim
