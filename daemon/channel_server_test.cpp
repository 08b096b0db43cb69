// The server against clients that speak in raw frames: what an honest one gets, and what a lying one can do.
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include "daemon/channel_harness.h"

namespace hydrant::daemon {
namespace {

using namespace test;

ch::Head pwrite_frame(Bytes data, uint64_t offset, uint16_t flags = 0, uint32_t msg_id = 0) {
  return ch::encode_pwrite(9, {.offset = offset, .length = data.size(), .msg_id = msg_id, .data = data}, flags);
}

TEST_F(ChannelServerTest, CommandsReachTheChannelWithTheirResults) {
  RawClient client = attached();
  EXPECT_TRUE(server_->attached());
  EXPECT_EQ(client.ask(ch::encode_bytes(ch::Op::kWrite, 2, 9), as_bytes("copen 0,1")), 9);
  EXPECT_EQ(client.ask(ch::encode_bytes(ch::Op::kWrite, 3, 6), as_bytes("refuse")), -EINVAL);
  EXPECT_EQ(client.ask(ch::encode_bytes(ch::Op::kWrite, 4, 0)), 0);
  EXPECT_EQ(standing_->commands(), (std::vector<std::string>{"copen 0,1", "refuse", ""}));
}

TEST_F(ChannelServerTest, OpenModeIsAChannelOfItsOwnAndItsEndTheRelease) {
  RawClient client = connect();
  ASSERT_EQ(client.hello(ch::Mode::kOpen), 0);
  ASSERT_TRUE(engine_.opened());
  RawClient second = connect();
  EXPECT_EQ(second.hello(ch::Mode::kOpen), -EBUSY);
  client.disconnect();
  EXPECT_TRUE(eventually([&] { return !engine_.opened(); }));
  EXPECT_EQ(second.hello(ch::Mode::kOpen), 0) << "a refused client may ask again";
}

TEST_F(ChannelServerTest, WaitingReadsAreAnsweredInTheirOrder) {
  RawClient client = attached();
  client.send(ch::encode_read(100, {1024, 3}, true));
  client.send(ch::encode_read(200, {1024, 2}, true));
  for (uint32_t i = 0; i < 5; ++i) standing_->push_read(i, {i * 4096, (i + 1) * 4096});
  for (uint32_t i = 0; i < 5; ++i) {
    auto reply = client.receive();
    ASSERT_TRUE(reply);
    EXPECT_EQ(reply->header.tag, i < 3 ? 100u : 200u);
    EXPECT_EQ(proto::decode_message(reply->payload)->msg_id, i);
    EXPECT_EQ(reply->header.result, int64_t(reply->payload.size()));
  }
  standing_->push_read(9, {0, 4096});
  EXPECT_EQ(standing_->waiting(), 1u) << "no credit, no delivery";
}

TEST_F(ChannelServerTest, AReadThatDoesNotWaitGetsZeroOrTheReason) {
  RawClient client = attached();
  EXPECT_EQ(client.ask(ch::encode_read(1, {1024, 1}, false)), 0);
  standing_->push_read(4, {0, 4096});
  EXPECT_EQ(client.ask(ch::encode_read(2, {31, 1}, false)), -EMSGSIZE);
  EXPECT_EQ(client.ask(ch::encode_read(3, {32, 1}, false)), 32);
}

TEST_F(ChannelServerTest, PollAnswersNowOrWhenTheMaskChanges) {
  RawClient client = attached();
  EXPECT_EQ(client.ask(ch::encode_poll(1, {}, false)), 0);
  client.send(ch::encode_poll(2, {0}, true));
  EXPECT_EQ(client.ask(ch::encode_poll(3, {}, false)), 0) << "the waiting poll is still waiting";
  standing_->push_read(0, {0, 4096});
  auto reply = client.receive();
  ASSERT_TRUE(reply);
  EXPECT_EQ(reply->header.tag, 2u);
  EXPECT_EQ(reply->header.result, EPOLLIN);
}

TEST_F(ChannelServerTest, ACancelledWaitIsAnsweredBeforeItsCancellation) {
  RawClient client = attached();
  client.send(ch::encode_read(7, {1024, 4}, true));
  client.send(ch::encode_poll(8, {0}, true));
  for (uint64_t target : {7, 8}) {
    client.send(ch::encode_cancel(90, {target}));
    auto first = client.receive(), second = client.receive();
    ASSERT_TRUE(first && second);
    EXPECT_EQ(first->header.tag, target);
    EXPECT_EQ(first->header.result, -ECANCELED);
    EXPECT_EQ(second->header.tag, 90u);
    EXPECT_EQ(second->header.result, 0);
  }
  EXPECT_EQ(client.ask(ch::encode_cancel(91, {7})), -ENOENT);
  standing_->push_read(0, {0, 4096});
  EXPECT_EQ(standing_->waiting(), 1u);
}

TEST_F(ChannelServerTest, AnOpenBringsAHandleThatPerformsEachCall) {
  RawClient client = attached();
  auto object = std::make_shared<FakeObject>();
  standing_->push_open(5, object, "blob");
  client.send(ch::encode_read(1, {1024, 1}, true));
  auto reply = client.receive();
  ASSERT_TRUE(reply && reply->fd);
  auto message = proto::decode_message(reply->payload);
  ASSERT_TRUE(message);
  EXPECT_EQ(message->fd, 0) << "a number of the server's table would mean nothing here";
  EXPECT_EQ(as_text(message->cookie_key), "blob");
  RawClient handle(std::move(reply->fd));
  EXPECT_EQ(handle.ask(pwrite_frame(as_bytes("data"), 4096), as_bytes("data")), 4);
  EXPECT_EQ(handle.ask(pwrite_frame(as_bytes("data"), 100), as_bytes("data")), -ENOBUFS);
  EXPECT_EQ(handle.ask(ch::encode_bytes(ch::Op::kAppend, 2, 3), as_bytes("one")), 3);
  EXPECT_EQ(handle.ask(ch::encode_lseek(3, {512, 0})), 512);
  EXPECT_EQ(handle.ask(ch::encode_ioctl(4, {6, 1})), -EINVAL);
  EXPECT_EQ(handle.ask(ch::encode_ioctl(5, {6, proto::kReadComplete})), 0);
  object->locked([](FakeObject& o) {
    EXPECT_EQ(as_text(o.writes[4096]), "data");
    EXPECT_EQ(as_text(o.writes[0]), "one");
    EXPECT_EQ(o.completed, std::vector<uint32_t>{6});
  });
}

TEST_F(ChannelServerTest, ACombinedWriteCompletesOnlyWhatWasWrittenWhole) {
  RawClient client = attached();
  auto object = std::make_shared<FakeObject>();
  RawClient handle = open_handle(client, object);
  auto completion = [&](uint32_t msg_id) {
    handle.send(pwrite_frame(as_bytes("data"), 0, ch::kComplete, msg_id), as_bytes("data"));
    auto reply = handle.receive();
    EXPECT_EQ(reply->payload.size(), 4u);
    return std::pair(reply->header.result, load_le<int32_t>(reply->payload.data()));
  };
  EXPECT_EQ(completion(3), (std::pair<int64_t, int32_t>(4, 0)));
  EXPECT_EQ(completion(0xbad), (std::pair<int64_t, int32_t>(4, -EINVAL)));
  object->answer = 2;
  EXPECT_EQ(completion(4), (std::pair<int64_t, int32_t>(2, -ECANCELED)));
  object->answer = -ENOSPC;
  EXPECT_EQ(completion(5), (std::pair<int64_t, int32_t>(-ENOSPC, -ECANCELED)));
  object->answer = 0;
  handle.send(pwrite_frame(as_bytes("data"), 0, ch::kComplete | ch::kNoAnswer, 6), as_bytes("data"));
  EXPECT_EQ(handle.ask(ch::encode_lseek(3, {1, 0})), 1) << "the write before it had no answer";
  object->locked([](FakeObject& o) { EXPECT_EQ(o.completed, (std::vector<uint32_t>{3, 0xbad, 6})); });
}

TEST_F(ChannelServerTest, AHandleIsClosedByTheLastOfItsCopies) {
  RawClient client = attached();
  auto object = std::make_shared<FakeObject>();
  RawClient handle = open_handle(client, object);
  Fd copy(::fcntl(handle.fd(), F_DUPFD_CLOEXEC, 0));
  handle.disconnect();
  RawClient rest(std::move(copy));
  EXPECT_EQ(rest.ask(pwrite_frame(as_bytes("data"), 0), as_bytes("data")), 4);
  EXPECT_EQ(object->open_handles, 1);
  rest.disconnect();
  EXPECT_TRUE(eventually([&] { return object->open_handles == 0; }));
  EXPECT_EQ(server_->open_handles(), 0u);
}

TEST_F(ChannelServerTest, HandlesOfAnOpenInstanceOutliveItsChannel) {
  RawClient client = connect();
  ASSERT_EQ(client.hello(ch::Mode::kOpen), 0);
  auto object = std::make_shared<FakeObject>();
  engine_.opened()->push_open(0, object);
  client.send(ch::encode_read(1, {1024, 1}, true));
  RawClient handle(std::move(client.receive()->fd));
  client.disconnect();
  ASSERT_TRUE(eventually([&] { return !engine_.opened(); }));
  EXPECT_EQ(handle.ask(pwrite_frame(as_bytes("data"), 0), as_bytes("data")), 4);
}

TEST_F(ChannelServerTest, OneClientIsAttachedAndTheNextGetsInWhenItsHandlesAreGone) {
  auto object = std::make_shared<FakeObject>();
  RawClient first = attached();
  RawClient handle = open_handle(first, object);
  RawClient second = connect();
  EXPECT_EQ(second.hello(ch::Mode::kAttach), -EBUSY);
  // The handle is still held: by then the client that was attached is dead, and so is what it held.
  first.disconnect();
  EXPECT_EQ(second.hello(ch::Mode::kAttach), 0);
  EXPECT_EQ(object->open_handles, 0);
  EXPECT_FALSE(handle.receive());
  EXPECT_EQ(second.ask(ch::encode_bytes(ch::Op::kWrite, 2, 7), as_bytes("restore")), 7);
  second.send(ch::encode_read(1, {1024, 1}, true));
  auto again = second.receive();
  ASSERT_TRUE(again);
  EXPECT_TRUE(again->fd) << "what the dead client never answered is delivered again";
}

TEST_F(ChannelServerTest, AttachingMustBeOffered) {
  standing_ = nullptr;
  start({});
  RawClient client = connect();
  EXPECT_EQ(client.hello(ch::Mode::kAttach), -EOPNOTSUPP);
  standing_ = std::make_shared<cachefiles::FakeChannel>();
}

TEST_F(ChannelServerTest, AnotherVersionIsRefusedByName) {
  RawClient client = connect();
  EXPECT_EQ(client.ask(ch::encode_hello(1, {.version = 2})), -EPROTONOSUPPORT);
  EXPECT_EQ(client.hello(ch::Mode::kAttach), 0);
}

TEST_F(ChannelServerTest, LargeWritesTravelInAWindow) {
  RawClient client = attached();
  Fd memory = sealed_memory(1 << 20);
  std::string text(300000, 'w');
  ASSERT_EQ(::pwrite(memory.get(), text.data(), text.size(), 4096), ssize_t(text.size()));
  EXPECT_EQ(client.ask(ch::encode_window(2, {3}), {}, {memory.get()}), 0);
  EXPECT_EQ(client.ask(ch::encode_window(2, {3}), {}, {memory.get()}), -EEXIST);
  auto object = std::make_shared<FakeObject>();
  RawClient handle = open_handle(client, object);
  auto write = [&](uint32_t window, uint64_t at, uint64_t length) {
    return handle.ask(ch::encode_pwrite(3, {.offset = 8192, .window_offset = at, .length = length, .window = window},
                                        ch::kFromWindow));
  };
  EXPECT_EQ(write(3, 4096, text.size()), int64_t(text.size()));
  object->locked([&](FakeObject& o) { EXPECT_EQ(as_text(o.writes[8192]), text); });
  EXPECT_EQ(write(3, (1 << 20) - 4096, 4097), -EFAULT) << "past the window's end";
  EXPECT_EQ(write(4, 0, 1), -EFAULT) << "no such window";
}

TEST_F(ChannelServerTest, WindowsThatCouldShrinkOrAreNoMemoryAreRefused) {
  RawClient client = attached();
  Fd unsealed = sealed_memory(4096, 0);
  EXPECT_EQ(client.ask(ch::encode_window(2, {0}), {}, {unsealed.get()}), -EPERM);
  Fd file(::open(directory_.c_str(), O_TMPFILE | O_RDWR | O_CLOEXEC, 0600));
  EXPECT_EQ(client.ask(ch::encode_window(2, {0}), {}, {file ? file.get() : 0}), -EPERM);
  EXPECT_EQ(client.ask(ch::encode_window(2, {0}), {}, {client.fd()}), -EPERM);
  Fd empty = sealed_memory(0);
  EXPECT_EQ(client.ask(ch::encode_window(2, {0}), {}, {empty.get()}), -EINVAL);
}

TEST_F(ChannelServerTest, TheWorkingDirectoryIsAPassedDirectory) {
  RawClient client = attached();
  Fd directory(::open(directory_.c_str(), O_PATH | O_CLOEXEC));
  Fd file(::open("/proc/self/exe", O_RDONLY | O_CLOEXEC));
  EXPECT_EQ(client.ask(ch::encode_cwd(1), {}, {file.get()}), -ENOTDIR);
  EXPECT_EQ(client.ask(ch::encode_bytes(ch::Op::kWrite, 2, 6), as_bytes("cull x")), 6);
  EXPECT_EQ(standing_->last_cwd(), AT_FDCWD);
  EXPECT_EQ(client.ask(ch::encode_cwd(1), {}, {directory.get()}), 0);
  EXPECT_EQ(client.ask(ch::encode_bytes(ch::Op::kWrite, 2, 6), as_bytes("cull x")), 6);
  EXPECT_GE(standing_->last_cwd(), 0);
}

TEST_F(ChannelServerTest, ASlowDiskDelaysNeitherDeliveryNorOtherHandles) {
  RawClient client = attached();
  auto slow = std::make_shared<FakeObject>(), fast = std::make_shared<FakeObject>();
  std::promise<void> release;
  slow->hold = release.get_future().share();
  RawClient stuck = open_handle(client, slow, 0);
  RawClient free = open_handle(client, fast, 1);
  stuck.send(pwrite_frame(as_bytes("a"), 0), as_bytes("a"));
  EXPECT_EQ(free.ask(pwrite_frame(as_bytes("b"), 0), as_bytes("b")), 1);
  standing_->push_read(7, {0, 4096});
  EXPECT_EQ(client.ask(ch::encode_read(1, {1024, 1}, true)), 32);
  release.set_value();
  EXPECT_EQ(stuck.receive()->header.result, 1);
}

TEST_F(ChannelServerTest, OneHandlesFramesAreDoneInTheirOrder) {
  RawClient client = attached();
  auto object = std::make_shared<FakeObject>();
  RawClient handle = open_handle(client, object);
  for (int i = 0; i < 50; ++i) {
    handle.send(pwrite_frame(as_bytes("x"), 0, ch::kNoAnswer), as_bytes("x"));
    handle.send(ch::encode_ioctl(i, {uint64_t(i), proto::kReadComplete}));
    ASSERT_EQ(handle.receive()->header.tag, uint64_t(i));
  }
  object->locked([](FakeObject& o) {
    ASSERT_EQ(o.calls.size(), 100u);
    for (size_t i = 0; i < o.calls.size(); ++i) EXPECT_EQ(o.calls[i], i % 2 ? "complete" : "pwrite");
  });
}

// ---- Clients that lie.

TEST_F(ChannelServerTest, ATornFrameEndsItsConnectionOnly) {
  RawClient honest = connect();
  RawClient liar = attached();
  ch::Head head = ch::encode_read(1, {1024, 1}, true);
  liar.raw(head.bytes().first(11));
  EXPECT_TRUE(ends_with(liar, CloseReason::kMalformed));
  EXPECT_EQ(honest.hello(ch::Mode::kAttach), 0);
}

TEST_F(ChannelServerTest, AHugeFrameOrALyingLengthEndsTheConnection) {
  RawClient liar = attached();
  Buffer huge(ch::kMaxFrame + 1000);
  store_le<uint16_t>(huge.data(), uint16_t(ch::Op::kWrite));
  store_le<uint32_t>(huge.data() + 4, uint32_t(huge.size()));
  liar.raw(huge);
  EXPECT_TRUE(ends_with(liar, CloseReason::kMalformed));
  expect_healthy();
}

TEST_F(ChannelServerTest, OpsThatDoNotBelongEndTheConnection) {
  RawClient before = connect();
  before.send(ch::encode_poll(1, {}, false));
  EXPECT_TRUE(ends_with(before, CloseReason::kDisorder)) << "HELLO comes first";
  RawClient twice = attached();
  twice.send(ch::encode_hello(2, {}));
  EXPECT_FALSE(twice.receive());
  EXPECT_TRUE(eventually([&] { return server_->closed(CloseReason::kDisorder) == 2; }));
  ASSERT_TRUE(eventually([&] { return !server_->attached(); }));
  RawClient client = attached();
  auto object = std::make_shared<FakeObject>();
  RawClient handle = open_handle(client, object);
  handle.send(ch::encode_bytes(ch::Op::kWrite, 1, 4), as_bytes("bind"));
  EXPECT_FALSE(handle.receive());
  EXPECT_TRUE(eventually([&] { return object->open_handles == 0; }));
  EXPECT_EQ(client.ask(ch::encode_poll(1, {}, false)), 0) << "the control socket is not to blame";
}

TEST_F(ChannelServerTest, DescriptorsWhereNoneBelongEndTheConnection) {
  RawClient liar = attached();
  liar.send(ch::encode_poll(1, {}, false), {}, {liar.fd()});
  EXPECT_TRUE(ends_with(liar, CloseReason::kDescriptors));
  expect_healthy();
  ASSERT_TRUE(eventually([&] { return !server_->attached(); }));
  RawClient second = attached();
  second.send(ch::encode_window(1, {0}));
  EXPECT_FALSE(second.receive());
  EXPECT_TRUE(eventually([&] { return server_->closed(CloseReason::kDescriptors) == 2; }));
}

TEST_F(ChannelServerTest, MoreWaitingRequestsThanAllowedEndTheConnection) {
  RawClient liar = attached();
  liar.send(ch::encode_read(1, {1024, ch::kMaxCredits}, true));
  EXPECT_EQ(liar.ask(ch::encode_poll(2, {}, false)), 0);
  liar.send(ch::encode_read(3, {1024, 1}, true));
  EXPECT_TRUE(ends_with(liar, CloseReason::kFlood));
  expect_healthy();
}

TEST_F(ChannelServerTest, AClientThatNeverTakesItsAnswersStopsOnlyItself) {
  RawClient client = attached();
  auto object = std::make_shared<FakeObject>(), other = std::make_shared<FakeObject>();
  RawClient greedy = open_handle(client, object, 0);
  RawClient handle = open_handle(client, other, 1);
  ch::Head seek = ch::encode_lseek(1, {1, 0});
  // Until neither side's socket takes more.
  auto stuffed = [&](RawClient& to, const ch::Head& head) {
    int64_t sent = 0;
    for (Deadline deadline = soon(); !deadline.passed();) {
      if (send_packet(to.fd(), head.bytes()) > 0)
        ++sent;
      else if (!wait_fd(to.fd(), POLLOUT, Deadline::after(200ms)))
        return sent;
    }
    return int64_t(-1);
  };
  EXPECT_GT(stuffed(greedy, seek), 0);
  EXPECT_EQ(handle.ask(pwrite_frame(as_bytes("b"), 0), as_bytes("b")), 1);
  EXPECT_GT(stuffed(client, ch::encode_poll(1, {}, false)), 0);
  EXPECT_EQ(handle.ask(pwrite_frame(as_bytes("b"), 0), as_bytes("b")), 1);
  // It may still come to its senses.
  int answers = 0;
  while (!client.quiet()) answers += client.receive().has_value();
  EXPECT_GT(answers, 0);
  client.disconnect();
  EXPECT_TRUE(eventually([&] { return object->open_handles == 0 && other->open_handles == 0; }));
  expect_healthy();
}

TEST_F(ChannelServerTest, MoreConnectionsThanAllowedAreClosedAndTheOthersWork) {
  RawClient good = attached();
  std::vector<RawClient> crowd;
  for (int i = 0; i < 1000; ++i) crowd.push_back(connect());
  EXPECT_TRUE(eventually([&] { return server_->closed(CloseReason::kTooMany) >= 900; }));
  EXPECT_EQ(good.ask(ch::encode_poll(1, {}, false)), 0);
  crowd.clear();
  RawClient late = connect();
  EXPECT_TRUE(eventually([&] {
    int64_t result = late.hello(ch::Mode::kAttach);
    if (result == -EPIPE) late = connect();
    return result == -EBUSY;
  }));
}

TEST_F(ChannelServerTest, APeerWithoutPrivilegeIsRefusedByItsCredentials) {
  if (::geteuid() != 0) GTEST_SKIP() << "SKIPPED: only root can become a stranger";
  RawClient good = attached();
  // A stranger who gets as far as the socket.
  ::chmod(directory_.c_str(), 0755);
  ::chmod((directory_ + "/channel.sock").c_str(), 0666);
  for (auto mode : {ch::Mode::kAttach, ch::Mode::kOpen}) {
    int64_t result = 0;
    bool ended = false;
    std::thread stranger([&] {
      constexpr uid_t kNobody = 65534;
      // The system call itself changes this thread alone.
      ASSERT_EQ(::syscall(SYS_setresuid, kNobody, kNobody, kNobody), 0);
      RawClient client = connect();
      result = client.hello(mode);
      ended = !client.receive();
    });
    stranger.join();
    EXPECT_EQ(result, -EPERM);
    EXPECT_TRUE(ended);
  }
  EXPECT_EQ(server_->closed(CloseReason::kDenied), 2u);
  EXPECT_FALSE(engine_.opened());
  EXPECT_EQ(good.ask(ch::encode_poll(1, {}, false)), 0);
}

TEST_F(ChannelServerTest, TheUserDaemonsUserMayAttachAndOpenNothing) {
  if (::geteuid() != 0) GTEST_SKIP() << "SKIPPED: only root can become somebody else";
  constexpr uid_t kUserDaemon = 65534;
  start({.may_attach = [](uid_t uid) { return uid == kUserDaemon; }});
  ::chmod(directory_.c_str(), 0755);
  ::chmod((directory_ + "/channel.sock").c_str(), 0666);
  std::map<ch::Mode, int64_t> results;
  std::thread([&] {
    ASSERT_EQ(::syscall(SYS_setresuid, kUserDaemon, kUserDaemon, kUserDaemon), 0);
    for (auto mode : {ch::Mode::kOpen, ch::Mode::kAttach}) {
      RawClient client = connect();
      results[mode] = client.hello(mode);
    }
  }).join();
  EXPECT_EQ(results[ch::Mode::kOpen], -EPERM);
  EXPECT_GE(results[ch::Mode::kAttach], 0);
}

TEST_F(ChannelServerTest, AConnectionThatNeverSaysHelloIsClosed) {
  ChannelServerOptions options;
  options.hello_timeout = 1ms;
  start(options);
  RawClient silent = connect();
  EXPECT_FALSE(silent.receive());
  EXPECT_GE(server_->closed(CloseReason::kSilent), 1u);
}

TEST_F(ChannelServerTest, GarbageOfEveryLengthIsSurvived) {
  start({.max_connections = 256});  // clients come faster than those before them are thrown out
  uint64_t seed = 42;
  for (int round = 0; round < 100; ++round) {
    RawClient liar = connect();
    if (round % 2) liar.send(ch::encode_hello(1, {.mode = ch::Mode::kOpen}));
    for (int frame = 0; frame < 8; ++frame) {
      Buffer bytes(seed % 200 + 1);
      for (auto& byte : bytes) {
        seed = seed * 6364136223846793005u + 1442695040888963407u;
        byte = std::byte(seed >> 56);
      }
      if (bytes.size() >= 24 && round % 4 == 1) {
        // A plausible header, so that payload decoders see garbage too.
        store_le<uint16_t>(bytes.data(), uint16_t(seed % 20));
        store_le<uint16_t>(bytes.data() + 2, 0);
        store_le<uint32_t>(bytes.data() + 4, uint32_t(bytes.size()));
        store_le<int64_t>(bytes.data() + 16, 0);
      }
      liar.raw(bytes);
    }
  }
  expect_healthy();
}

TEST_F(ChannelServerTest, StoppingTheServerDropsHandlesWhileWakeUpsAreOnTheirWay) {
  for (int round = 0; round < 20; ++round) {
    auto object = std::make_shared<FakeObject>();
    RawClient client = attached();
    RawClient handle = open_handle(client, object);
    client.send(ch::encode_read(1, {1024, 1000}, true));
    std::thread source([&] {
      for (uint32_t i = 0; i < 200; ++i) standing_->push_read(i, {0, 4096});
    });
    server_.reset();
    EXPECT_EQ(object->open_handles, 0);
    source.join();
    standing_ = std::make_shared<cachefiles::FakeChannel>();
    start({});
  }
}

}  // namespace
}  // namespace hydrant::daemon
