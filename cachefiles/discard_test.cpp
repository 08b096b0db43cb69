// Making room under live readers and writers: what is read is right or asked for anew, never a hole.
#include <sys/stat.h>

#include <random>

#include "cachefiles/harness.h"

namespace hydrant::cachefiles::test {
namespace {

constexpr uint64_t kPortion = 64 * kBlock;  // what is given back at a time

class DiscardTest : public EngineTest {
 protected:
  uint64_t allocated() {
    struct stat stat {};
    auto paths = files();
    EXPECT_EQ(paths.size(), 1u);
    EXPECT_EQ(::stat((dir.path() + "/" + paths.at(0)).c_str(), &stat), 0);
    return static_cast<uint64_t>(stat.st_blocks) * 512;
  }
};

TEST_F(DiscardTest, GivesBackWhatWasNotReadSinceTheLastTime) {
  BO();
  auto o = opened("key", 16 * kPortion);
  ASSERT_EQ(handle(o.fd).pwrite(blocks(16 * kPortion), 0), int64_t{16 * kPortion});
  ASSERT_TRUE(engine().flush());
  EXPECT_EQ(o.cookie->discard(UINT64_MAX), 0u) << "it has only just come";
  EXPECT_EQ(read_back(*o.cookie, 3 * kPortion + 5, 10), std::string(10, 'x'));
  EXPECT_EQ(o.cookie->discard(4 * kPortion), 4 * kPortion);
  EXPECT_FALSE(o.cookie->present({0, kBlock}));
  EXPECT_FALSE(o.cookie->present({4 * kPortion, 5 * kPortion}));
  EXPECT_TRUE(o.cookie->present({3 * kPortion, 4 * kPortion})) << "it was read";
  EXPECT_EQ(o.cookie->stat().present_bytes, 12 * kPortion);
  EXPECT_LE(allocated(), 12 * kPortion + 64 * 1024);
  EXPECT_EQ(o.cookie->discard(UINT64_MAX), 12 * kPortion) << "the others, and it as well: not read since";
  EXPECT_LE(allocated(), uint64_t{64 * 1024});
}

TEST_F(DiscardTest, WhatIsGoneIsAskedForAnewAndStaysGoneOverARestart) {
  BO();
  auto o = opened("key", 2 * kPortion);
  ASSERT_EQ(handle(o.fd).pwrite(blocks(2 * kPortion), 0), int64_t{2 * kPortion});
  ASSERT_TRUE(engine().flush());
  o.cookie->discard(0);
  ASSERT_EQ(o.cookie->discard(kPortion), kPortion);
  char out[16];
  EXPECT_EQ(o.cookie->read(std::as_writable_bytes(std::span(out)), 0), -ESTALE);
  auto read = C(*o.cookie, 0, kBlock);
  auto asked = next();
  EXPECT_EQ(asked.opcode, proto::Opcode::kRead);
  ASSERT_EQ(handle(o.fd).pwrite(blocks(kBlock, 'y'), 0), int64_t{kBlock});
  cr(o.fd, asked.msg_id);
  EXPECT_EQ(read->wait(), 0);
  EXPECT_EQ(read_back(*o.cookie, 0, 1), "y");

  forget(o.cookie);
  stop();
  BO();
  auto again = opened("key", 2 * kPortion);
  EXPECT_TRUE(again.cookie->present({0, kBlock}));
  EXPECT_FALSE(again.cookie->present({kBlock, kPortion}));
  EXPECT_TRUE(again.cookie->present({kPortion, 2 * kPortion}));
}

TEST_F(DiscardTest, NothingGoesFromUnderWhoeverReadsTheFileByHimself) {
  BO();
  auto o = opened("key", kPortion);
  ASSERT_EQ(handle(o.fd).pwrite(blocks(kPortion), 0), int64_t{kPortion});
  ASSERT_TRUE(engine().flush());
  o.cookie->discard(0);
  ASSERT_TRUE(o.cookie->backing_file());
  EXPECT_EQ(o.cookie->discard(UINT64_MAX), 0u);
  EXPECT_TRUE(o.cookie->complete());
}

// The mount that got the file may live on without its hydrantd: detached, or in another namespace.
TEST_F(DiscardTest, WhoeverReadsTheFileByHimselfIsRememberedOverARestart) {
  BO();
  auto o = opened("key", kPortion);
  ASSERT_EQ(handle(o.fd).pwrite(blocks(kPortion), 0), int64_t{kPortion});
  ASSERT_TRUE(engine().flush());
  ASSERT_TRUE(o.cookie->backing_file());
  forget(o.cookie);
  stop();
  BO();
  auto again = opened("key", kPortion);
  again.cookie->discard(0);
  EXPECT_EQ(again.cookie->discard(UINT64_MAX), 0u);
  EXPECT_TRUE(again.cookie->complete());
}

// A slow READ: what came first is discarded before the last has come.
TEST_F(DiscardTest, WhatIsDiscardedUnderAWaitIsAskedForAgain) {
  BO();
  auto o = opened("key", 2 * kPortion);
  auto read = C(*o.cookie, 0, 2 * kPortion);
  auto asked = next();
  ASSERT_EQ(handle(o.fd).pwrite(blocks(kPortion), 0), int64_t{kPortion});
  o.cookie->discard(0);
  ASSERT_EQ(o.cookie->discard(UINT64_MAX), kPortion);
  ASSERT_EQ(handle(o.fd).pwrite(blocks(kPortion), kPortion), int64_t{kPortion});
  cr(o.fd, asked.msg_id);
  auto once_more = next();
  EXPECT_EQ(once_more.opcode, proto::Opcode::kRead);
  EXPECT_EQ(once_more.range, (ByteRange{0, kPortion}));
  ASSERT_EQ(handle(o.fd).pwrite(blocks(kPortion), 0), int64_t{kPortion});
  cr(o.fd, once_more.msg_id);
  EXPECT_EQ(read->wait(), 0);
}

TEST_F(DiscardTest, AWriteThatADiscardOvertakesIsWrittenAgain) {
  BO();
  auto o = opened("key", 2 * kPortion);
  ASSERT_EQ(handle(o.fd).pwrite(blocks(kPortion), 0), int64_t{kPortion});
  o.cookie->discard(0);
  // Between its bytes and its bits a hole is made where they were just written.
  disk.after_write = [&] { EXPECT_EQ(o.cookie->discard(UINT64_MAX), kPortion); };
  ASSERT_EQ(handle(o.fd).pwrite(blocks(kBlock, 'z'), 0), int64_t{kBlock});
  EXPECT_EQ(read_back(*o.cookie, 0, kBlock), std::string(kBlock, 'z'));
}

// Readers, a writer that fills what is missing and somebody who makes room, all at once; each block holds its number.
TEST_F(DiscardTest, ReadersNeverSeeAHole) {
  constexpr uint64_t kBlocks = 1024;
  constexpr int kReads = 20000;
  BO();
  auto o = opened("key", kBlocks * kBlock);
  auto content = [](uint64_t block) { return static_cast<std::byte>(1 + block % 251); };
  std::atomic<bool> over{false};
  std::atomic<int> wrong{0}, gone{0};
  std::jthread discarder([&] {
    while (!over) {
      o.cookie->discard(kBlocks * kBlock / 4);
      std::this_thread::yield();
    }
  });
  auto fill = [&](uint64_t block) { return handle(o.fd).pwrite(Buffer(kBlock, content(block)), block * kBlock); };
  std::vector<std::jthread> readers;
  for (unsigned seed = 0; seed < 3; ++seed)
    readers.emplace_back([&, seed] {
      std::minstd_rand random(seed + 1);
      Buffer out(kBlock);
      for (int i = 0; i < kReads; ++i) {
        const uint64_t block = random() % kBlocks;
        int64_t got = o.cookie->read(out, block * kBlock);
        if (got == -ESTALE) {
          ++gone;
          if (fill(block) != int64_t{kBlock}) ++wrong;
        } else if (got != int64_t{kBlock} || out != Buffer(kBlock, content(block))) {
          ++wrong;
        }
      }
    });
  readers.clear();
  over = true;
  discarder.join();
  EXPECT_EQ(wrong, 0);
  EXPECT_GT(gone, 0);
}

}  // namespace
}  // namespace hydrant::cachefiles::test
