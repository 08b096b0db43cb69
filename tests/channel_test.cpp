// Both ends of the control channel across a socket: the user daemon's SocketControl against hydrantd's ChannelServer,
// first with a scripted engine, then with the real one.
#include <gtest/gtest.h>
#include <sys/mman.h>

#include <atomic>
#include <filesystem>
#include <future>
#include <set>
#include <thread>

#include "base/temporary_directory.h"
#include "base/unix_socket.h"
#include "cachefiles/fake_engine.h"
#include "daemon/channel_server.h"
#include "fetch/transport/socket_control.h"

namespace hydrant {
namespace {

using namespace std::chrono_literals;
using cachefiles::FakeObject;
using fetch::SocketControl;

Deadline soon() { return Deadline::after(60s); }

template <class Condition>
bool eventually(Condition condition) {
  for (Deadline deadline = soon(); !condition(); std::this_thread::yield())
    if (deadline.passed()) return false;
  return true;
}

class ChannelTest : public ::testing::Test {
 protected:
  void SetUp() override { serve(fake_, standing_); }
  void TearDown() override { server_.reset(); }
  void serve(cachefiles::Engine& engine, std::shared_ptr<cachefiles::Channel> standing) {
    server_.reset();
    auto listener = listen_unix(path_, SocketType::kSeqPacket);
    ASSERT_TRUE(listener) << listener.error().what;
    daemon::ChannelServerOptions options;
    options.allowed_uid = ::getuid();
    server_ = daemon::ChannelServer::start(engine, std::move(standing), *std::move(listener), options).value();
  }
  std::unique_ptr<fetch::Control> attach(fetch::SocketControlOptions options = {}) {
    auto control = SocketControl::attach(path_, soon(), options);
    EXPECT_TRUE(control) << control.error().what;
    return *std::move(control);
  }
  std::shared_ptr<fetch::ObjectHandle> open(fetch::Control& control, std::shared_ptr<FakeObject> object) {
    standing_->push_open(0, std::move(object));
    auto request = control.next(soon());
    EXPECT_TRUE(request) << request.error().what;
    return std::get<fetch::OpenRequest>(*request).handle;
  }

  const TemporaryDirectory temporary_;
  const std::string directory_ = temporary_.path(), path_ = directory_ + "/channel.sock";
  cachefiles::FakeEngine fake_;
  std::shared_ptr<cachefiles::FakeChannel> standing_ = std::make_shared<cachefiles::FakeChannel>();
  std::unique_ptr<daemon::ChannelServer> server_;
};

TEST_F(ChannelTest, RequestsArriveDecodedAndCommandsAreAnswered) {
  auto control = attach();
  auto object = std::make_shared<FakeObject>();
  standing_->push_open(3, object, "blob");
  standing_->push_read(4, {4096, 12288});
  standing_->push_close(5);
  auto open = std::get<fetch::OpenRequest>(control->next(soon()).value());
  EXPECT_EQ(open.msg_id, 3u);
  EXPECT_EQ(open.volume_key, "erofs,test");
  EXPECT_EQ(open.cookie_key, "blob");
  auto read = std::get<fetch::ReadRequest>(control->next(soon()).value());
  EXPECT_EQ(read.range, (ByteRange{4096, 12288}));
  EXPECT_EQ(std::get<fetch::CloseRequest>(control->next(soon()).value()).msg_id, 5u);
  EXPECT_EQ(control->write("copen 3,8192"), 12);
  EXPECT_EQ(control->write("refuse"), -EINVAL);
  EXPECT_EQ(control->write(std::string(100000, 'x')), -EOPNOTSUPP);
  EXPECT_EQ(object->open_handles, 1);
  open.handle.reset();
  EXPECT_TRUE(eventually([&] { return object->open_handles == 0; }));
}

TEST_F(ChannelTest, NextEndsAtItsDeadlineAndWhenItIsStopped) {
  auto control = attach();
  EXPECT_EQ(control->next(Deadline::after(1ms)).error().code, Code::kTooSlow);
  auto waiting = std::async(std::launch::async, [&] { return control->next(soon()).error().code; });
  control->stop();
  EXPECT_EQ(waiting.get(), Code::kCancelled);
  EXPECT_EQ(control->next(soon()).error().code, Code::kCancelled);
  EXPECT_EQ(control->write("restore"), 7) << "stopping is about requests only";
}

TEST_F(ChannelTest, WritesOfEverySizeArriveWhole) {
  fetch::SocketControlOptions options;
  options.slot_bytes = 64 << 10;
  options.slots = 2;
  auto control = attach(options);
  auto object = std::make_shared<FakeObject>();
  auto handle = open(*control, object);
  for (size_t size : {0, 1, 4096, 65536, 65537, 200000}) {
    object->locked([](FakeObject& o) { o.writes.clear(); });
    std::string text(size, '\0');
    for (size_t i = 0; i < size; ++i) text[i] = char(i * 7 + i / 4096);
    EXPECT_EQ(handle->fill_and_complete(as_bytes(text), 4096, uint32_t(size)), int64_t(size));
    std::string got;
    object->locked([&](FakeObject& o) {
      for (auto& [offset, bytes] : o.writes) {
        EXPECT_EQ(offset, 4096 + got.size());
        got += as_text(bytes);
      }
      EXPECT_EQ(o.completed.back(), size);
    });
    EXPECT_EQ(got, text);
  }
  object->locked([](FakeObject& o) { EXPECT_EQ(o.completed.size(), 6u) << "once each, after the last piece"; });
  EXPECT_EQ(handle->pwrite(as_bytes("x"), 100), -ENOBUFS);
  EXPECT_EQ(handle->fill_and_complete(as_bytes("x"), 0, 0xbad), -EINVAL);
}

TEST_F(ChannelTest, StagedBytesAreWrittenFromWhereTheyStand) {
  fetch::SocketControlOptions options;
  options.slots = 1;
  auto control = attach(options);
  auto object = std::make_shared<FakeObject>();
  auto handle = open(*control, object);
  EXPECT_FALSE(handle->stage(options.slot_bytes + 1));
  {
    auto staging = handle->stage(1 << 20);
    ASSERT_TRUE(staging);
    EXPECT_FALSE(handle->stage(1)) << "the only slot is taken";
    std::fill_n(staging->bytes().begin(), 1 << 20, std::byte{7});
    // The only slot is taken, so this succeeds because it needs none.
    EXPECT_EQ(handle->pwrite(Bytes(staging->bytes()).subspan(4096, 1 << 19), 8192), 1 << 19);
  }
  EXPECT_TRUE(handle->stage(1));
  object->locked([](FakeObject& o) { EXPECT_EQ(o.writes[8192], Buffer(1 << 19, std::byte{7})); });
}

TEST_F(ChannelTest, ManyThreadsShareAControlAndItsHandles) {
  auto control = attach();
  auto first = std::make_shared<FakeObject>(), second = std::make_shared<FakeObject>();
  std::shared_ptr<fetch::ObjectHandle> handles[] = {open(*control, first), open(*control, second)};
  std::string large(100000, 'l'), small(4096, 's');
  std::vector<std::thread> threads;
  std::atomic<int> wrong{0};
  for (int t = 0; t < 8; ++t)
    threads.emplace_back([&, t] {
      for (int i = 0; i < 100; ++i) {
        std::string_view text = i % 4 == 0 ? large : small;
        uint64_t offset = uint64_t(t * 100 + i) << 20;
        if (handles[t % 2]->fill_and_complete(as_bytes(text), offset, uint32_t(i)) != int64_t(text.size())) ++wrong;
        if (i % 10 == 0 && control->write("copen 1,1") != 9) ++wrong;
      }
    });
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(wrong, 0);
  EXPECT_EQ(first->completions + second->completions, 800u);
}

TEST_F(ChannelTest, TwoThousandRequestsAreOutstandingAtOnce) {
  auto control = attach();
  auto object = std::make_shared<FakeObject>();
  auto handle = open(*control, object);
  std::thread source([&] {
    for (uint32_t i = 0; i < 2000; ++i) standing_->push_read(i, {i * 4096ull, (i + 1) * 4096ull});
  });
  std::vector<fetch::ReadRequest> reads;
  while (reads.size() < 2000) {
    auto request = control->next(soon());
    ASSERT_TRUE(request) << request.error().what;
    reads.push_back(std::get<fetch::ReadRequest>(*request));
  }
  source.join();
  std::string block(4096, 'b');
  std::vector<std::thread> threads;
  for (size_t t = 0; t < 4; ++t)
    threads.emplace_back([&, t] {
      for (size_t i = t; i < reads.size(); i += 4)
        EXPECT_EQ(handle->fill_and_complete(as_bytes(block), reads[i].range.begin, reads[i].msg_id), 4096);
    });
  for (auto& thread : threads) thread.join();
  object->locked([](FakeObject& o) {
    EXPECT_EQ(o.writes.size(), 2000u);
    EXPECT_EQ(std::set<uint32_t>(o.completed.begin(), o.completed.end()).size(), 2000u);
  });
}

TEST_F(ChannelTest, RequestsAreTakenAndFilledByTheDozen) {
  auto control = attach();
  auto first = std::make_shared<FakeObject>(), second = std::make_shared<FakeObject>();
  std::shared_ptr<fetch::ObjectHandle> handles[] = {open(*control, first), open(*control, second)};
  for (uint32_t i = 0; i < 500; ++i) standing_->push_read(i, {i * 4096ull, (i + 1) * 4096ull});
  std::string small(4096, 's'), large(100000, 'l');
  std::vector<fetch::Request> requests;
  while (requests.size() < 500) {
    size_t before = requests.size();
    auto count = control->next_some(requests, 64, soon());
    ASSERT_TRUE(count) << count.error().what;
    ASSERT_LE(*count, 64u);
    ASSERT_EQ(requests.size(), before + *count);
    std::vector<fetch::Fill> fills;
    for (size_t i = before; i < requests.size(); ++i) {
      auto& read = std::get<fetch::ReadRequest>(requests[i]);
      fills.push_back({handles[i % 2].get(), as_bytes(i % 50 == 0 ? large : small), uint64_t(i) << 20, read.msg_id});
    }
    control->fill_all(fills);
    for (auto& fill : fills) EXPECT_EQ(fill.result, int64_t(fill.bytes.size()));
  }
  std::vector<uint32_t> order;
  for (uint32_t i = 0; i < 500; i += 2) order.push_back(i);
  EXPECT_EQ(second->completions, 250u);
  first->locked([&](FakeObject& o) { EXPECT_EQ(o.completed, order) << "of one handle: in their order"; });
}

TEST_F(ChannelTest, HundredsOfObjectsNeedNoDescriptors) {
  auto count = [] {
    auto all = std::filesystem::directory_iterator("/proc/self/fd");
    return std::distance(begin(all), end(all));
  };
  const auto idle = count();
  for (unsigned lanes : {4u, 0u}) {
    fetch::SocketControlOptions options;
    options.lanes = lanes;
    auto control = attach(options);
    auto object = std::make_shared<FakeObject>();
    EXPECT_EQ(control->write("any"), 3) << "by its answer the server has closed what came with earlier frames";
    auto before = count();
    std::vector<std::shared_ptr<fetch::ObjectHandle>> handles;
    for (int i = 0; i < 200; ++i) handles.push_back(open(*control, object));
    EXPECT_EQ(count() - before, lanes ? 0 : 400) << "without lanes a handle is a socket";
    for (auto& handle : handles) EXPECT_EQ(handle->fill_and_complete(as_bytes("x"), 0, 1), 1);
    EXPECT_EQ(object->open_handles, 200);
    handles.clear();
    EXPECT_TRUE(eventually([&] { return object->open_handles == 0; }));
    control.reset();
    EXPECT_TRUE(eventually([&] { return !server_->attached(); }));
    EXPECT_TRUE(eventually([&] { return count() == idle; })) << "what the server closes later would be missed above";
  }
}

TEST_F(ChannelTest, ALostServerIsGoneForEveryWaiter) {
  auto control = attach();
  auto object = std::make_shared<FakeObject>();
  auto handle = open(*control, object);
  auto waiting = std::async(std::launch::async, [&] { return control->next(soon()).error().code; });
  server_.reset();
  EXPECT_EQ(waiting.get(), Code::kGone);
  EXPECT_EQ(control->next(soon()).error().code, Code::kGone);
  EXPECT_EQ(control->write("restore"), -EPIPE);
  EXPECT_EQ(handle->pwrite(as_bytes("x"), 0), -EPIPE);
  EXPECT_EQ(SocketControl::attach(path_, soon()).error().code, Code::kUnreachable);
}

TEST_F(ChannelTest, ASecondUserDaemonIsRefusedUntilTheFirstIsGone) {
  auto object = std::make_shared<FakeObject>();
  auto first = attach();
  auto handle = open(*first, object);
  EXPECT_EQ(SocketControl::attach(path_, soon()).error().code, Code::kBusy);
  first.reset();
  auto second = attach();
  EXPECT_EQ(object->open_handles, 0);
  EXPECT_EQ(handle->pwrite(as_bytes("x"), 0), -EPIPE);
  EXPECT_EQ(second->write("restore"), 7);
  EXPECT_TRUE(std::get<fetch::OpenRequest>(second->next(soon()).value()).handle);
}

TEST_F(ChannelTest, AnAnswerThatNeverComesLosesTheConnection) {
  fetch::SocketControlOptions options;
  options.call_timeout = 500ms;  // long enough for the attachment itself under load
  auto control = attach(options);
  auto object = std::make_shared<FakeObject>();
  std::promise<void> release;
  object->hold = release.get_future().share();
  auto handle = open(*control, object);
  EXPECT_EQ(handle->pwrite(as_bytes("x"), 0), -EPIPE);
  release.set_value();
}

TEST_F(ChannelTest, MemoryThatTheServerMayStillWriteFromIsNeverUsedAgain) {
  fetch::SocketControlOptions options;
  options.call_timeout = 500ms;  // long enough for the attachment itself under load
  options.slots = 1;
  auto control = attach(options);
  auto object = std::make_shared<FakeObject>();
  std::promise<void> release;
  object->hold = release.get_future().share();
  auto handle = open(*control, object);
  const Buffer bytes(1 << 20, std::byte{7});
  EXPECT_EQ(handle->pwrite(bytes, 0), -EPIPE) << "the server is stuck in the write";
  EXPECT_FALSE(handle->stage(4096)) << "its slot is not free";
  EXPECT_EQ(control->next(soon()).error().code, Code::kGone) << "a new connection brings a new window";
  release.set_value();
  ASSERT_TRUE(eventually([&] { return object->bytes == bytes.size(); }));
  EXPECT_EQ(object->locked([](FakeObject& o) { return o.writes.at(0); }), bytes) << "written late, and what was meant";
}

// A daemon of one thread and one loop, as small as the protocol allows, against the real engine.
class RealEngineTest : public ChannelTest {
 protected:
  void SetUp() override {
    ChannelTest::SetUp();
    std::filesystem::create_directory(directory_ + "/root");
    engine_ = cachefiles::Engine::create({});
  }
  void TearDown() override {
    server_.reset();
    standing_engine_.reset();
    engine_.reset();
    ChannelTest::TearDown();
  }
  void bind() {
    ASSERT_EQ(engine_->open_channel({}, &standing_engine_), 0);
    std::string dir = "dir " + directory_ + "/root";
    ASSERT_EQ(standing_engine_->write(as_bytes(dir), {}), int64_t(dir.size()));
    int64_t bound = standing_engine_->write(as_bytes("bind ondemand"), {});
    if (bound == -EOPNOTSUPP || bound == -EPERM) GTEST_SKIP() << "no usable file system for a cache: " << bound;
    ASSERT_EQ(bound, 13);
    serve(*engine_, standing_engine_);
  }
  std::unique_ptr<cachefiles::Engine> engine_;
  std::shared_ptr<cachefiles::Channel> standing_engine_;
};

TEST_F(RealEngineTest, AMissCrossesTheSocketAndIsReadBack) {
  bind();
  if (IsSkipped()) return;
  auto control = attach();
  auto volume = engine_->acquire_volume("erofs,test").value();
  auto cookie = engine_->acquire_cookie(volume, as_bytes("blob")).value();
  std::promise<int> active;
  cookie->use([&](int result) { active.set_value(result); });
  auto open = std::get<fetch::OpenRequest>(control->next(soon()).value());
  EXPECT_EQ(open.cookie_key, "blob");
  std::string copen = "copen " + std::to_string(open.msg_id) + ",1048576";
  EXPECT_EQ(control->write(copen), int64_t(copen.size()));
  ASSERT_EQ(active.get_future().get(), 0);
  EXPECT_EQ(cookie->size(), 1048576u);

  std::promise<int> filled;
  auto wait = cookie->ensure({8192, 8192 + 65536 + 4096}, [&](int result) { filled.set_value(result); });
  auto read = std::get<fetch::ReadRequest>(control->next(soon()).value());
  EXPECT_EQ(read.range, (ByteRange{8192, 8192 + 65536 + 4096}));
  std::string text(read.range.size(), 'd');
  EXPECT_EQ(open.handle->fill_and_complete(as_bytes(text), read.range.begin, read.msg_id), int64_t(text.size()));
  ASSERT_EQ(filled.get_future().get(), 0);
  Buffer back(text.size());
  EXPECT_EQ(cookie->read(back, 8192), int64_t(text.size()));
  EXPECT_EQ(as_text(back), text);

  // The daemon dies with a READ delivered; its successor is sent an OPEN and the READ again.
  std::promise<int> second;
  wait = cookie->ensure({524288, 528384}, [&](int result) { second.set_value(result); });
  EXPECT_TRUE(control->next(soon()));
  control.reset();
  open.handle.reset();
  control = attach();
  EXPECT_EQ(control->write("restore"), 7);
  auto again = std::get<fetch::OpenRequest>(control->next(soon()).value());
  EXPECT_NE(again.object_id, open.object_id);
  copen = "copen " + std::to_string(again.msg_id) + ",1048576";
  EXPECT_EQ(control->write(copen), int64_t(copen.size()));
  read = std::get<fetch::ReadRequest>(control->next(soon()).value());
  text.assign(read.range.size(), 'e');
  EXPECT_EQ(again.handle->fill_and_complete(as_bytes(text), read.range.begin, read.msg_id), int64_t(text.size()));
  EXPECT_EQ(second.get_future().get(), 0);
  wait.reset();
  cookie->unuse();
}

}  // namespace
}  // namespace hydrant
