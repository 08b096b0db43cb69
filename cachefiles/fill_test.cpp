// Writes and completions by the dozen: as if one by one.
#include "cachefiles/harness.h"

namespace hydrant::cachefiles::test {
namespace {

// Counts writes, and cuts them short when told to.
class CountingDisk final : public Disk {
 public:
  ssize_t write(int fd, const struct iovec* parts, int count, off_t offset) override {
    ++writes;
    if (int64_t most = std::exchange(cut, 0)) {
      struct iovec first = parts[0];
      first.iov_len = size_t(std::min<int64_t>(most, int64_t(first.iov_len)));
      return Disk::write(fd, &first, 1, offset);
    }
    if (int err = count > 1 ? refuse_many : 0) return err;
    return Disk::write(fd, parts, count, offset);
  }
  int writes = 0;
  int64_t cut = 0;      // of the next write
  int refuse_many = 0;  // of writes with more than one part
};

class FillTest : public EngineTest {
 protected:
  void SetUp() override {
    EngineTest::SetUp();
    options.disk = &counting;
  }
  struct Asked {
    std::vector<Outcome> reads;
    std::vector<Handle::Fill> fills;
  };
  // A READ for each of `blocks`, delivered, and what fills it.
  Asked ask(Opened& object, std::vector<uint64_t> numbers) {
    Asked out;
    for (uint64_t number : numbers) {
      out.reads.push_back(C(*object.cookie, number * kBlock, kBlock));
      out.fills.push_back({.bytes = data, .offset = number * kBlock, .msg_id = next().msg_id});
    }
    return out;
  }
  CountingDisk counting;
  Buffer data = blocks(kBlock, 'd');
};

TEST_F(FillTest, NeighboursAreOneWrite) {
  BO();
  auto o = opened("key", 1 << 20);
  auto asked = ask(o, {0, 1, 2, 7, 9, 8, 20, 21});
  handle(o.fd).fill(asked.fills);
  for (auto& fill : asked.fills) {
    EXPECT_EQ(fill.written, int64_t{kBlock});
    EXPECT_EQ(fill.completion, 0);
  }
  for (auto& read : asked.reads) EXPECT_EQ(read->wait(), 0);
  EXPECT_EQ(counting.writes, 5) << "0 to 2, 7, 9, 8, 20 and 21";
  EXPECT_EQ(read_back(*o.cookie, 2 * kBlock, 1), "d");
  EXPECT_FALSE(o.cookie->present({3 * kBlock, 4 * kBlock}));
}

TEST_F(FillTest, AShortTailEndsItsWriteAndIsPadded) {
  BO();
  auto o = opened("key", 1 << 20);
  auto asked = ask(o, {0, 1, 2});
  asked.fills[1].bytes = Bytes(data).first(10);
  handle(o.fd).fill(asked.fills);
  EXPECT_EQ(asked.fills[1].written, 10);
  EXPECT_EQ(counting.writes, 2);
  for (auto& read : asked.reads) EXPECT_EQ(read->wait(), 0);
  EXPECT_EQ(read_back(*o.cookie, kBlock + 9, 2), std::string("d\0", 2));
}

TEST_F(FillTest, AShortWriteIsShortForOneOfThem) {
  BO();
  auto o = opened("key", 1 << 20);
  auto asked = ask(o, {0, 1, 2});
  counting.cut = 100;
  handle(o.fd).fill(asked.fills);
  EXPECT_EQ(asked.fills[0].written, 100);
  EXPECT_EQ(asked.fills[0].completion, -ECANCELED);
  EXPECT_EQ(asked.fills[1].written, int64_t{kBlock});
  EXPECT_EQ(asked.reads[2]->wait(), 0);
  EXPECT_EQ(asked.reads[0]->count(), 0);
  EXPECT_FALSE(o.cookie->present({0, kBlock}));
  ASSERT_EQ(cr(o.fd, *asked.fills[0].msg_id), 0);
  EXPECT_EQ(asked.reads[0]->wait(), -EIO);
}

TEST_F(FillTest, WhatFailsTogetherIsTriedAlone) {
  BO();
  auto o = opened("key", 1 << 20);
  auto asked = ask(o, {0, 1});
  counting.refuse_many = -ENOSPC;
  handle(o.fd).fill(asked.fills);
  for (auto& read : asked.reads) EXPECT_EQ(read->wait(), 0);
}

TEST_F(FillTest, WrongOffsetsAndUnknownRequestsFailAlone) {
  BO();
  auto o = opened("key", 1 << 20);
  auto asked = ask(o, {0, 1, 2});
  asked.fills[1].offset += 1;
  asked.fills[2].msg_id = 12345;
  handle(o.fd).fill(asked.fills);
  EXPECT_EQ(asked.fills[0].completion, 0);
  EXPECT_EQ(asked.fills[1].written, -ENOBUFS);
  EXPECT_EQ(asked.fills[1].completion, -ECANCELED);
  EXPECT_EQ(asked.fills[2].written, int64_t{kBlock});
  EXPECT_EQ(asked.fills[2].completion, -EINVAL);
  std::vector<Handle::Fill> none;
  handle(o.fd).fill(none);
}

TEST_F(FillTest, ThousandsAtOnce) {
  BO();
  auto o = opened("key", 64 << 20);
  std::vector<uint64_t> numbers;
  for (uint64_t i = 0; i < 1000; ++i) numbers.push_back(i);
  auto asked = ask(o, numbers);
  handle(o.fd).fill(asked.fills);
  for (auto& read : asked.reads) ASSERT_EQ(read->wait(), 0);
  EXPECT_EQ(counting.writes, 16) << "64 blocks a write";
}

}  // namespace
}  // namespace hydrant::cachefiles::test
