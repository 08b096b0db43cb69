// The specification's transcripts T54 to T85, by number: READ, close, reopen, restore and death. What needs another
// process or a real kernel is elsewhere.
#include <thread>

#include "cachefiles/harness.h"

namespace hydrant::cachefiles::test {
namespace {

using proto::Opcode;

// --- 12.5 READ

TEST_F(Transcripts, T54_T55_AMissIsRead) {
  BO();
  auto o = opened("key", 8192);
  auto data = C(*o.cookie, 0, 8192);
  auto read = next();
  EXPECT_EQ(read.opcode, Opcode::kRead);
  EXPECT_EQ(read.range, (ByteRange{0, 8192}));
  EXPECT_EQ(read.object_id, o.open.object_id);
  EXPECT_EQ(handle(o.fd).pwrite(blocks(8192, 'd'), 0), 8192);
  EXPECT_FALSE(data->ready());
  EXPECT_EQ(cr(o.fd, read.msg_id), 0);
  EXPECT_EQ(data->wait(), 0);
  EXPECT_EQ(read_back(*o.cookie, 0, 8192), std::string(8192, 'd'));
  EXPECT_TRUE(o.cookie->present({0, 8192}));
}

TEST_F(Transcripts, T56_S44_CompletionWithoutDataIsAnError) {
  BO();
  auto o = opened("key", 8192);
  auto data = C(*o.cookie, 0, 8192);
  EXPECT_EQ(cr(o.fd, next().msg_id), 0);
  EXPECT_EQ(data->wait(), -EIO);
  EXPECT_EQ(Rd(), 0);
}

TEST_F(Transcripts, T57_T67_APrefixIsServedAndTheRestAskedFor) {
  BO();
  auto o = opened("key", 8192);
  auto data = C(*o.cookie, 0, 8192);
  auto read = next();
  EXPECT_EQ(handle(o.fd).pwrite(blocks(4096), 0), 4096);
  EXPECT_EQ(handle(o.fd).lseek(0, SEEK_DATA), 0);
  EXPECT_EQ(handle(o.fd).lseek(0, SEEK_HOLE), 4096);
  EXPECT_EQ(cr(o.fd, read.msg_id), 0);
  read = next();
  EXPECT_EQ(read.range, (ByteRange{4096, 8192}));
  handle(o.fd).pwrite(blocks(4096), 4096);
  cr(o.fd, read.msg_id);
  EXPECT_EQ(data->wait(), 0);
}

TEST_F(Transcripts, T58_ALaterPartOnlyIsAnError) {
  BO();
  auto o = opened("key", 8192);
  auto data = C(*o.cookie, 0, 8192);
  auto read = next();
  handle(o.fd).pwrite(blocks(4096), 4096);
  EXPECT_EQ(cr(o.fd, read.msg_id), 0);
  EXPECT_EQ(data->wait(), -EIO);
}

TEST_F(Transcripts, T59_OnlyTheHoleIsAskedFor) {
  BO();
  auto o = opened("key", 8192);
  handle(o.fd).pwrite(blocks(4096), 4096);
  auto data = C(*o.cookie, 0, 8192);
  EXPECT_EQ(next().range, (ByteRange{0, 4096}));
}

TEST_F(Transcripts, T60_T61_S17_ForgedCompletionsAreRefused) {
  BO();
  auto o = opened("key", 8192), p = opened("other", 8192);
  auto data = C(*o.cookie, 0, 8192);
  auto read = next();
  EXPECT_EQ(cr(p.fd, read.msg_id), -EINVAL);
  EXPECT_EQ(cr(o.fd, read.msg_id + 7), -EINVAL);
  EXPECT_EQ(W(copen(read.msg_id, 1)), -EINVAL);
  EXPECT_FALSE(data->ready());
  handle(o.fd).pwrite(blocks(8192), 0);
  EXPECT_EQ(cr(o.fd, read.msg_id), 0);
  EXPECT_EQ(cr(o.fd, read.msg_id), -EINVAL);
}

TEST_F(Transcripts, T62_S21_AKilledReaderLeaves) {
  BO();
  auto o = opened("key", 8192);
  auto data = C(*o.cookie, 0, 8192);
  auto read = next();
  last_wait->cancel();
  EXPECT_EQ(data->wait(), -EINTR);
  last_wait->cancel();
  EXPECT_EQ(data->count(), 1);
  EXPECT_EQ(cr(o.fd, read.msg_id), -EINVAL);
  data = C(*o.cookie, 0, 4096);
  EXPECT_NE(next().msg_id, read.msg_id);
}

TEST_F(Transcripts, T63_S2_AClosedChannelIsPinnedByHandles) {
  BO();
  auto o = opened("key", 8192);
  auto data = C(*o.cookie, 0, 8192);
  auto read = next();
  channel.reset();
  EXPECT_EQ(data->wait(), -EIO);
  EXPECT_EQ(handle(o.fd).pwrite(blocks(4096), 0), 4096);
  EXPECT_EQ(cr(o.fd, read.msg_id), -EINVAL);
  EXPECT_EQ(O(), -EBUSY);
  daemon.table.clear();
  EXPECT_EQ(O(), 0);
}

TEST_F(Transcripts, T64_T65_TheCursorMovesOn) {
  BO();
  auto o = opened("key", 1 << 20);
  std::vector<Outcome> data;
  for (int i = 0; i < 2; ++i) data.push_back(C(*o.cookie, kBlock * i, kBlock));
  auto a = next(), b = next();
  EXPECT_LT(a.msg_id, b.msg_id);
  for (auto& read : {a, b}) {
    handle(o.fd).pwrite(blocks(kBlock), read.range.begin);
    cr(o.fd, read.msg_id);
  }
  data.push_back(C(*o.cookie, kBlock * 2, kBlock));
  EXPECT_GT(next().msg_id, b.msg_id);
}

TEST_F(Transcripts, T66_S32_S33_S34_WritesAtTheHandle) {
  BO();
  auto o = opened("key", 16384);
  EXPECT_EQ(handle(o.fd).pwrite(blocks(100, 'a'), 0), 100);
  EXPECT_EQ(handle(o.fd).pwrite(blocks(4096, 'b'), 100), -ENOBUFS);
  EXPECT_EQ(read_back(*o.cookie, 0, 4096), std::string(100, 'a') + std::string(3996, '\0'));
  EXPECT_EQ(handle(o.fd).write(blocks(4096, 'c')), 4096);
  EXPECT_EQ(handle(o.fd).write(blocks(4096, 'd')), 4096);
  EXPECT_EQ(read_back(*o.cookie, 4096, 1), "d");
}

TEST_F(Transcripts, T68_OtherIoctlsAreInvalid) {
  BO();
  auto o = opened("key", 8192);
  EXPECT_EQ(handle(o.fd).ioctl(0x1234, 0), -EINVAL);
}

// --- 12.6 close, reopen, restore, death

TEST_F(Transcripts, T69_WithdrawalSendsClose) {
  BO();
  auto o = opened("key", 8192);
  auto gone = rel(o.cookie);
  ASSERT_TRUE(wait_in());
  EXPECT_EQ(Rd(), 16);
  auto close = message();
  EXPECT_EQ(close.opcode, Opcode::kClose);
  EXPECT_EQ(close.object_id, o.open.object_id);
  EXPECT_EQ(W(copen(close.msg_id, 0)), -EINVAL);
  gone->wait();
  EXPECT_EQ(handle(o.fd).pwrite(blocks(4096), 0), -ENOBUFS);
}

TEST_F(Transcripts, T70_ClosingTheHandleAnswersAnUnreadClose) {
  BO();
  auto o = opened("key", 8192);
  auto gone = rel(o.cookie);
  ASSERT_TRUE(wait_in());
  daemon.table.clear();
  gone->wait();
  EXPECT_EQ(Rd(), 0);
}

TEST_F(Transcripts, T71_T72_S26_AReadOnAClosedHandleReopens) {
  BO();
  auto o = opened("key", 8192);
  daemon.table.clear();
  auto data = C(*o.cookie, 0, 4096);
  EXPECT_TRUE(in());
  EXPECT_EQ(Rd(), 0);
  EXPECT_TRUE(in());
  auto open = next();
  EXPECT_EQ(open.opcode, Opcode::kOpen);
  EXPECT_GT(open.object_id, o.open.object_id);
  EXPECT_FALSE(in());
  EXPECT_GT(W(copen(open.msg_id, 8192)), 0);
  EXPECT_TRUE(in());
  auto read = next();
  EXPECT_EQ(read.opcode, Opcode::kRead);
  EXPECT_EQ(read.object_id, open.object_id);
  handle(open.fd).pwrite(blocks(4096), 0);
  cr(open.fd, read.msg_id);
  EXPECT_EQ(data->wait(), 0);
}

TEST_F(Transcripts, T73_ARefusedReopenFailsItsReaders) {
  BO();
  auto o = opened("key", 8192);
  daemon.table.clear();
  auto data = C(*o.cookie, 0, 4096);
  EXPECT_EQ(Rd(), 0);
  auto open = next();
  EXPECT_GT(W(copen(open.msg_id, -5)), 0);
  EXPECT_EQ(data->wait(), -EIO);
  daemon.table.clear();
  data = C(*o.cookie, 0, 4096);
  EXPECT_EQ(Rd(), 0);
  open = next();
  EXPECT_GT(W(copen(open.msg_id, 8192)), 0);
  auto read = next();
  handle(open.fd).pwrite(blocks(4096), 0);
  cr(open.fd, read.msg_id);
  EXPECT_EQ(data->wait(), 0);
}

TEST_F(Transcripts, E13_AReopenWithAnotherSizeIsRefused) {
  BO();
  auto o = opened("key", 8192);
  for (int64_t size : {4096, 16384}) {
    daemon.table.clear();
    auto data = C(*o.cookie, 0, 4096);
    EXPECT_EQ(Rd(), 0);
    auto open = next();
    EXPECT_GT(W(copen(open.msg_id, size)), 0);
    EXPECT_EQ(data->wait(), -EIO);
    EXPECT_EQ(o.cookie->size(), 8192u);
  }
  daemon.table.clear();
  auto data = C(*o.cookie, 0, 4096);
  EXPECT_EQ(Rd(), 0);
  auto open = next();
  EXPECT_GT(W(copen(open.msg_id, 8192)), 0);
  auto read = next();
  handle(open.fd).pwrite(blocks(4096), 0);
  cr(open.fd, read.msg_id);
  EXPECT_EQ(data->wait(), 0);
}

TEST_F(Transcripts, E13_TheKernelsWayTakesAReopensNewSize) {
  like_the_kernel();
  BO();
  auto o = opened("key", 8192);
  daemon.table.clear();
  auto data = C(*o.cookie, 0, 4096);
  EXPECT_EQ(Rd(), 0);
  EXPECT_GT(W(copen(next().msg_id, 16384)), 0);
  EXPECT_EQ(next().opcode, Opcode::kRead);
  EXPECT_EQ(o.cookie->size(), 16384u);
}

TEST_F(Transcripts, T74_RestoreDeliversAgain) {
  BO();
  auto o = opened("key", 8192);
  auto data = C(*o.cookie, 0, 8192);
  auto read = next();
  EXPECT_FALSE(in());
  EXPECT_EQ(W("restore"), 7);
  EXPECT_TRUE(in());
  EXPECT_EQ(next().msg_id, read.msg_id);
}

TEST_F(Transcripts, T75_S16_AnOpenRestoredWithItsHandleAliveFails) {
  BO();
  auto c = cookie("key");
  auto ready = use(*c);
  auto open = next();
  EXPECT_EQ(W("restore"), 7);
  EXPECT_EQ(Rd(), -EEXIST);
  EXPECT_EQ(ready->wait(), -ENOBUFS);
  EXPECT_EQ(handle(open.fd).ioctl(0, 0), -EINVAL);
}

TEST_F(Transcripts, T76_AnOpenRestoredWithItsHandleLostIsDeliveredAgain) {
  BO();
  auto c = cookie("key");
  auto ready = use(*c);
  auto open = next();
  daemon.table.clear();
  EXPECT_EQ(W("restore"), 7);
  auto again = next();
  EXPECT_EQ(again.msg_id, open.msg_id);
  EXPECT_NE(again.object_id, open.object_id);
  EXPECT_GT(W(copen(again.msg_id, 4096)), 0);
  EXPECT_EQ(ready->wait(), 0);
}

TEST_F(Transcripts, T77_S28_ADeliveredReadOnAClosedHandleWaitsForRestore) {
  BO();
  auto o = opened("key", 8192);
  auto data = C(*o.cookie, 0, 4096);
  next();
  daemon.table.clear();
  EXPECT_FALSE(in());
  EXPECT_EQ(W("restore"), 7);
  EXPECT_EQ(Rd(), 0);
  EXPECT_EQ(next().opcode, Opcode::kOpen);
}

TEST_F(Transcripts, T78_S27_RestoreWakesPollers) {
  BO();
  auto o = opened("key", 8192);
  auto data = C(*o.cookie, 0, 4096);
  next();
  auto woken = std::make_shared<Promise<int>>();
  channel->on_wake([woken] { woken->set(1); });
  std::thread([&] { W("restore"); }).join();
  EXPECT_EQ(woken->wait(), 1);
  EXPECT_TRUE(in());
}

TEST_F(Transcripts, T79_S11_AnIoErrorKillsTheCache) {
  BO();
  auto o = opened("key", 8192);
  auto data = C(*o.cookie, 0, 4096);
  disk.error = -EIO;
  EXPECT_EQ(handle(o.fd).pwrite(blocks(4096), 4096), -ENOBUFS);
  EXPECT_EQ(data->wait(), -EIO);
  EXPECT_EQ(W("debug 0"), -EIO);
  EXPECT_EQ(Rd(), 0);
  EXPECT_FALSE(in());
  disk.error = 0;
}

TEST_F(Transcripts, T80_CullingShowsInOnDemandMode) {
  BO();
  auto o = opened("key", 8192);
  disk.free_blocks = 40'000;
  EXPECT_EQ(handle(o.fd).pwrite(blocks(4096), 0), 4096);
  EXPECT_TRUE(out());
  Rd();
  EXPECT_TRUE(out());
}

TEST_F(Transcripts, T81_OneRequestGoesToOneReader) {
  BO();
  auto o = opened("key", 8192);
  auto data = C(*o.cookie, 0, 4096);
  FakeDaemon other;
  int64_t got[2];
  std::thread second([&] { got[1] = channel->read(1024, other); });
  got[0] = Rd();
  second.join();
  EXPECT_EQ(got[0] + got[1], 32);
}

TEST_F(Transcripts, T82_S25_ADropTakesTheReopenWithIt) {
  BO();
  auto o = opened("key", 8192);
  daemon.table.clear();
  auto data = C(*o.cookie, 0, 4096);
  EXPECT_EQ(Rd(), 0);
  EXPECT_TRUE(in());
  rel(o.cookie)->wait();
  EXPECT_EQ(data->wait(), -EIO);
  EXPECT_FALSE(in());
  EXPECT_EQ(Rd(), 0);
}

TEST_F(Transcripts, T83_TheKernelsNamingLosesACrashedSession) {
  like_the_kernel();
  BO();
  auto o = opened("key", 8192);
  handle(o.fd).pwrite(blocks(8192), 0);
  EXPECT_EQ(files().size(), 0u);
  auto gone = rel(o.cookie);
  next();
  gone->wait();
  EXPECT_EQ(files(), std::vector<std::string>{"cache/Iv/@fd/Dkey"});
}

TEST_F(Transcripts, T84_KeysWithoutANameFail) {
  BO();
  EXPECT_EQ(use(*cookie(std::string(253, 'k')))->wait(), -ENOBUFS);
  EXPECT_EQ(use(*cookie(std::string(250, '\xfe')))->wait(), -ENOBUFS);
  EXPECT_EQ(files().size(), 0u);
}

TEST_F(Transcripts, T85_AGoodDaemonSucceedsAfterAnyBadOne) {
  for (int bad = 0; bad < 8; ++bad) {
    SCOPED_TRACE(bad);
    BO();
    std::string key = "key" + std::to_string(bad);
    auto c = cookie(key);
    auto ready = use(*c);
    auto open = next();
    W(copen(open.msg_id, bad & 1 ? -1 : 8192));
    Outcome data;
    if (ready->wait() == 0) {
      data = C(*c, 0, 4096);
      if (bad & 2) cr(open.fd, next().msg_id);
    }
    channel.reset();
    EXPECT_EQ(data ? data->wait() : -EIO, -EIO);
    if (!(bad & 4)) daemon.table.clear();
    forget(c);
    volumes.clear();
    cookies.clear();
    daemon.table.clear();
    settle();

    BO();
    auto o = opened(key, 8192);
    data = C(*o.cookie, 0, 4096);
    auto read = next();
    EXPECT_EQ(handle(o.fd).pwrite(blocks(4096, 'g'), 0), 4096);
    EXPECT_EQ(cr(o.fd, read.msg_id), 0);
    EXPECT_EQ(data->wait(), 0);
    EXPECT_EQ(read_back(*o.cookie, 0, 4096), std::string(4096, 'g'));
    forget(o.cookie);
    stop();
  }
}

}  // namespace
}  // namespace hydrant::cachefiles::test
