// A server that is killed while somebody else holds its descriptors, and the one that comes after it.
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/mman.h>

#include <atomic>
#include <thread>

#include "base/unix_socket.h"
#include "front/fuse/blob_fs.h"
#include "front/fuse/blob_journal.h"
#include "tests/front/fake_cookie.h"
#include "tests/front/kernel_test.h"

namespace hydrant {
namespace {

using front::BlobFs;
using front::Held;
using testing::Child;
using testing::eventually;
using testing::FakeCookie;
using testing::oracle_bytes;

constexpr uint64_t kSize = 8 << 20;

class TakeoverTest : public ::testing::Test {
 protected:
  void SetUp() override {
    REQUIRE_MOUNTS();
    scratch.make("blobs");
  }
  std::shared_ptr<FakeCookie> cookie(const std::string& name) {
    return std::make_shared<FakeCookie>(scratch / name, kSize,
                                        [](uint64_t at, MutableBytes out) { oracle_bytes(5, at, out); });
  }
  front::BlobFsOptions options() { return {.mount_point = scratch / "blobs"}; }

  // A server process with the file "blob", which supplies nothing; what keeps its file system alive comes to us.
  std::unique_ptr<Child> serve(Held& held) {
    auto ends = socket_pair(SocketType::kSeqPacket);
    EXPECT_TRUE(ends);
    auto server = std::make_unique<Child>([&] {
      auto fs = BlobFs::create(options());
      if (!fs) return 1;
      auto data = cookie("first");
      data->set_mood(FakeCookie::Mood::kHold);
      if (!(*fs)->add("blob", data, kSize, {"volume", "id"})) return 2;
      Held mine = (*fs)->held();
      int fds[] = {mine.device.get(), mine.mount.get(), mine.journal.get()};
      if (send_packet(ends->second.get(), as_bytes("held"), {}, fds) < 0) return 3;
      for (;;) ::pause();
    });
    take(ends->first, held);
    return server;
  }
  static void take(const Fd& socket, Held& held) {
    ASSERT_TRUE(wait_fd(socket.get(), POLLIN, Deadline::after(std::chrono::seconds(10))));
    std::byte text[16];
    Packet packet;
    ASSERT_GT(receive_packet(socket.get(), text, &packet), 0);
    ASSERT_EQ(packet.fd_count, 3u);
    held = {std::move(packet.fds[0]), std::move(packet.fds[1]), std::move(packet.fds[2])};
  }
  static uint64_t opens(const Held& held) {
    auto journal = front::BlobJournal::open(held.journal.duplicate());
    auto blobs = journal ? journal->read() : fail(std::move(journal).error());
    return blobs && blobs->blobs.size() == 1 ? blobs->blobs[0].opens : 0;
  }
  // Reads 4096 bytes at an offset in the background; the outcome is an errno, 0, or 250 for wrong bytes.
  struct Reader {
    std::atomic<int> outcome{-1};
    std::jthread thread;
    Reader(int fd, uint64_t offset) {
      thread = std::jthread([this, fd, offset] {
        Buffer got(4096);
        ssize_t n = ::pread(fd, got.data(), got.size(), static_cast<off_t>(offset));
        outcome = n < 0 ? errno : n == 4096 && got == oracle_bytes(5, offset, 4096) ? 0 : 250;
      });
    }
  };

  testing::ScratchDir scratch;
};

TEST_F(TakeoverTest, WhatTheDeadServerHadReadIsAnsweredByTheNextOne) {
  Held held;
  auto server = serve(held);
  ASSERT_TRUE(held);
  Fd file(::open((scratch / "blobs/blob").c_str(), O_RDONLY | O_CLOEXEC));
  ASSERT_TRUE(file);
  ASSERT_TRUE(eventually([&] { return opens(held) == 1; }));
  std::vector<std::unique_ptr<Reader>> readers;
  for (uint64_t i = 0; i < 16; ++i) readers.push_back(std::make_unique<Reader>(file.get(), i * 65536));
  // Some of them have been read by the server, some perhaps not: both kinds must come.
  server->kill();
  EXPECT_EQ(server->wait(), 128 + SIGKILL);
  Reader late(file.get(), 4 << 20);
  for (auto& reader : readers) EXPECT_EQ(reader->outcome, -1) << "they wait";

  auto data = cookie("second");
  std::vector<std::string> handed;
  auto fs = BlobFs::take_over(options(), std::move(held), [&](const proto::HandedBlob& blob) {
    handed.push_back(blob.volume + "/" + blob.id + "/" + blob.name);
    return Result<std::shared_ptr<cachefiles::Cookie>>(data);
  });
  ASSERT_TRUE(fs) << fs.error().what;
  EXPECT_EQ(handed, std::vector<std::string>{"volume/id/blob"});
  for (auto& reader : readers) EXPECT_TRUE(eventually([&] { return reader->outcome == 0; })) << reader->outcome;
  EXPECT_TRUE(eventually([&] { return late.outcome == 0; })) << late.outcome;

  // The next one is a server like any other.
  EXPECT_TRUE((*fs)->open("blob"));
  ASSERT_TRUE((*fs)->add("more", data, kSize, {"volume", "other"}));
  EXPECT_TRUE((*fs)->open("more"));
  (*fs)->remove("blob");
  Reader again(file.get(), 5 << 20);
  EXPECT_TRUE(eventually([&] { return again.outcome == 0; })) << again.outcome;
}

TEST_F(TakeoverTest, WhenNobodyTakesOverReadersGetAnErrorAsSoonAsNobodyHolds) {
  Held held;
  auto server = serve(held);
  ASSERT_TRUE(held);
  Fd file(::open((scratch / "blobs/blob").c_str(), O_RDONLY | O_CLOEXEC));
  ASSERT_TRUE(file);
  Reader reader(file.get(), 0);
  server->kill();
  EXPECT_EQ(server->wait(), 128 + SIGKILL);
  EXPECT_EQ(reader.outcome, -1);
  held = {};
  EXPECT_TRUE(eventually([&] { return reader.outcome > 0; }));
  EXPECT_NE(reader.outcome, 250) << "zeros";
}

TEST_F(TakeoverTest, AReaderThatIsKilledMeanwhileIsNotAnsweredLater) {
  Held held;
  auto server = serve(held);
  ASSERT_TRUE(held);
  Fd file(::open((scratch / "blobs/blob").c_str(), O_RDONLY | O_CLOEXEC));
  ASSERT_TRUE(file);
  Child reader([&] {
    char byte;
    return ::pread(file.get(), &byte, 1, 0) == 1 ? 0 : errno;
  });
  server->kill();
  EXPECT_EQ(server->wait(), 128 + SIGKILL);
  reader.kill();
  auto data = cookie("second");
  data->set_mood(FakeCookie::Mood::kHold);
  auto fs = BlobFs::take_over(options(), std::move(held), [&](const proto::HandedBlob&) {
    return Result<std::shared_ptr<cachefiles::Cookie>>(data);
  });
  ASSERT_TRUE(fs) << fs.error().what;
  EXPECT_EQ(reader.wait(), 128 + SIGKILL);
  EXPECT_TRUE(eventually([&] { return (*fs)->stat().waiting == 0; }));
}

TEST_F(TakeoverTest, ARecordThatCannotBeReadIsNotTakenOver) {
  Held held;
  auto server = serve(held);
  ASSERT_TRUE(held);
  server->kill();
  held.journal.reset(::memfd_create("other", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  auto fs = BlobFs::take_over(options(), std::move(held), [&](const proto::HandedBlob&) {
    return Result<std::shared_ptr<cachefiles::Cookie>>(nullptr);
  });
  ASSERT_FALSE(fs);
  EXPECT_EQ(fs.error().code, Code::kCorrupt);
  auto fresh = BlobFs::create(options());
  EXPECT_TRUE(fresh) << fresh.error().what;
}

}  // namespace
}  // namespace hydrant
