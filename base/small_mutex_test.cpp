#include "base/small_mutex.h"

#include <gtest/gtest.h>

#include <mutex>
#include <thread>
#include <vector>

namespace hydrant {
namespace {

static_assert(sizeof(SmallMutex) == 4);

TEST(SmallMutex, OneIsInsideAtATime) {
  SmallMutex mutex;
  uint64_t count = 0;
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t)
    threads.emplace_back([&] {
      for (int i = 0; i < 20000; ++i) {
        std::lock_guard lock(mutex);
        ++count;
      }
    });
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(count, 80000u);
}

TEST(SmallMutex, AWaiterGetsInWhenTheHolderLeaves) {
  SmallMutex mutex;
  std::atomic<int> inside{0};
  mutex.lock();
  EXPECT_FALSE(mutex.try_lock());
  std::thread first([&] {
    std::lock_guard lock(mutex);
    ++inside;
  });
  std::thread second([&] {
    std::lock_guard lock(mutex);
    ++inside;
  });
  EXPECT_EQ(inside, 0);
  mutex.unlock();
  first.join();
  second.join();
  EXPECT_EQ(inside, 2);
  EXPECT_TRUE(mutex.try_lock());
  mutex.unlock();
}

}  // namespace
}  // namespace hydrant
