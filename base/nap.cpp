#include "base/nap.h"

#include <condition_variable>
#include <mutex>

namespace hydrant {

void nap(std::stop_token stop, Duration duration) {
  std::mutex mutex;
  std::condition_variable_any nobody;
  std::unique_lock lock(mutex);
  nobody.wait_for(lock, stop, duration, [] { return false; });
}

}  // namespace hydrant
