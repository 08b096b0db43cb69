// The promise of the hot path: a hit takes no lock and allocates nothing. Counted, for this thread, by replacing
// operator new and pthread_mutex_lock in the whole test program; sanitizers bring their own.
#include <dlfcn.h>
#include <pthread.h>

#include <cstdlib>
#include <new>

#include "cachefiles/harness.h"

#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
#define HYDRANT_COUNTS 0
#else
#define HYDRANT_COUNTS 1
#endif

namespace {
thread_local uint64_t allocations = 0, locks = 0;
}

#if HYDRANT_COUNTS
void* operator new(std::size_t size) {
  ++allocations;
  if (void* at = std::malloc(size)) return at;
  throw std::bad_alloc();
}
void operator delete(void* at) noexcept { std::free(at); }
void operator delete(void* at, std::size_t) noexcept { std::free(at); }

extern "C" int pthread_mutex_lock(pthread_mutex_t* mutex) {
  using Lock = int (*)(pthread_mutex_t*);
  static const auto real = reinterpret_cast<Lock>(::dlsym(RTLD_NEXT, "pthread_mutex_lock"));
  ++locks;
  return real(mutex);
}
#endif

namespace hydrant::cachefiles::test {
namespace {

class Hit : public EngineTest {};

TEST_F(Hit, TakesNoLockAndAllocatesNothing) {
  if (!HYDRANT_COUNTS) GTEST_SKIP() << "SKIPPED: a sanitizer counts for itself";
  BO();
  auto o = opened("key", 1 << 20);
  ASSERT_EQ(handle(o.fd).pwrite(blocks(1 << 20), 0), 1 << 20);
  uint64_t allocated = allocations, locked = locks;
  EXPECT_GT(allocated, 0u);
  EXPECT_GT(locked, 0u);
  char out[4096];
  bool here = true;
  int64_t got = 0;
  for (uint64_t i = 0; i < 256; ++i) {
    here &= o.cookie->present({i * kBlock, (i + 1) * kBlock});
    got += o.cookie->read(std::as_writable_bytes(std::span(out)), i * kBlock);
  }
  EXPECT_EQ(allocations, allocated);
  EXPECT_EQ(locks, locked);
  EXPECT_TRUE(here);
  EXPECT_EQ(got, 1 << 20);
}

}  // namespace
}  // namespace hydrant::cachefiles::test
