#include "base/shared_memory.h"

#include <gtest/gtest.h>
#include <sys/mman.h>

#include <cerrno>

namespace hydrant {
namespace {

TEST(SharedMemory, WhatOneWritesTheOtherReads) {
  auto one = SharedMemory::create("test", 8192);
  ASSERT_TRUE(one) << one.error().what;
  auto other = SharedMemory::open(one->fd().duplicate(), 8192);
  ASSERT_TRUE(other) << other.error().what;
  one->store(4096, uint64_t{0x1122334455667788});
  EXPECT_EQ(load_le<uint64_t>(other->bytes().data() + 4096), 0x1122334455667788u);
  SharedMemory moved = std::move(*other);
  EXPECT_EQ(load_le<uint64_t>(moved.bytes().data() + 4096), 0x1122334455667788u);
}

TEST(SharedMemory, NobodyCutsItUnderAMapping) {
  auto memory = SharedMemory::create("test", 8192);
  EXPECT_EQ(::ftruncate(memory->fd().get(), 4096), -1);
  EXPECT_EQ(errno, EPERM);
}

TEST(SharedMemory, AnotherSizeAndWhatMayShrinkAreRefused) {
  auto memory = SharedMemory::create("test", 8192);
  EXPECT_EQ(SharedMemory::open(memory->fd().duplicate(), 4096).error().code, Code::kCorrupt);
  Fd open(::memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  ASSERT_EQ(::ftruncate(open.get(), 8192), 0);
  EXPECT_EQ(SharedMemory::open(std::move(open), 8192).error().code, Code::kCorrupt);
  EXPECT_FALSE(SharedMemory::open(Fd(), 8192));
}

}  // namespace
}  // namespace hydrant
