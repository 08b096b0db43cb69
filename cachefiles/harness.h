// For tests: a consumer, a user daemon and the operator in one process, each step one call, after the notation of the
// specification's transcripts.
#pragma once

#include <gtest/gtest.h>
#include <sys/epoll.h>
#include <sys/stat.h>
#include <sys/xattr.h>

#include <condition_variable>
#include <cstdlib>
#include <deque>
#include <filesystem>
#include <fstream>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "base/fd.h"
#include "cachefiles/disk.h"
#include "cachefiles/engine.h"
#include "proto/cachefiles_message.h"

namespace hydrant::cachefiles::test {

inline constexpr auto kPatience = std::chrono::seconds(30);
inline constexpr uint64_t kBlock = 4096;

// A value that another thread sets once.
template <class T>
class Promise {
 public:
  void set(T value) {
    {
      std::lock_guard lock(mutex_);
      ++count_;
      value_ = value;
    }
    changed_.notify_all();
  }
  T wait() {
    std::unique_lock lock(mutex_);
    if (!changed_.wait_for(lock, kPatience, [&] { return count_ > 0; })) ADD_FAILURE() << "nothing came";
    return value_;
  }
  bool ready() const {
    std::lock_guard lock(mutex_);
    return count_ > 0;
  }
  int count() const {
    std::lock_guard lock(mutex_);
    return count_;
  }

 private:
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  T value_{};
  int count_ = 0;
};
using Outcome = std::shared_ptr<Promise<int>>;  // shared with the callback that sets it

// A disk whose free space and errors the test decides.
class FakeDisk final : public Disk {
 public:
  int statfs(int fd, struct statfs* out) override {
    if (int err = error.load()) return err;
    if (int result = Disk::statfs(fd, out)) return result;
    out->f_blocks = 1'000'000;
    out->f_bavail = out->f_bfree = free_blocks.load();
    out->f_files = 10'000;
    out->f_ffree = free_files.load();
    return 0;
  }
  ssize_t write(int fd, const struct iovec* parts, int count, off_t offset) override {
    ssize_t done = Disk::write(fd, parts, count, offset);
    if (after_write) std::exchange(after_write, nullptr)();
    return done;
  }
  int sync_data(int fd) override {
    if (int err = sync_error.load()) return err;
    note("sync");
    ++syncing;
    if (before_sync) before_sync();
    --syncing;
    return Disk::sync_data(fd);
  }
  Result<> replace_file(const std::string& path, Bytes contents) override {
    note("map");
    if (power_is_off.load()) return fail_sys(EIO, "power cut");
    if (int err = map_error.load()) return fail_sys(err, "map");
    return Disk::replace_file(path, contents);
  }
  std::vector<std::string> order() {
    std::lock_guard lock(mutex_);
    return order_;
  }

  std::function<void()> after_write;  // once, between the bytes and their bits; for one writer alone
  std::function<void()> before_sync;
  std::atomic<int> syncing{0};
  std::atomic<int> error{0}, sync_error{0}, map_error{0};
  std::atomic<bool> power_is_off{false};
  std::atomic<uint64_t> free_blocks{900'000}, free_files{9'000};

 private:
  void note(const char* what) {
    std::lock_guard lock(mutex_);
    order_.push_back(what);
  }
  std::mutex mutex_;
  std::vector<std::string> order_;
};

// The daemon's descriptor table and memory.
class FakeDaemon final : public Receiver {
 public:
  int reserve_fd() override { return full ? -EMFILE : next_fd++; }
  void release_fd(int) override { ++released; }
  bool deliver(Bytes bytes, std::shared_ptr<Handle> handle, int fd) override {
    if (bad_address) return false;
    if (during_delivery) std::exchange(during_delivery, nullptr)();
    memory = to_buffer(bytes);
    if (handle) table[fd] = std::move(handle);
    return true;
  }

  std::function<void()> during_delivery;  // once
  bool full = false, bad_address = false;
  int next_fd = 10, released = 0;
  Buffer memory;
  std::map<int, std::shared_ptr<Handle>> table;
};

class Scratch {
 public:
  Scratch() {
    std::string path = std::filesystem::temp_directory_path() / "hydrant-engine-XXXXXX";
    if (!::mkdtemp(path.data())) ADD_FAILURE() << "mkdtemp";
    path_ = path;
  }
  ~Scratch() { std::filesystem::remove_all(path_); }
  const std::string& path() const { return path_; }
  bool supports_attributes() const { return ::setxattr(path_.c_str(), "user.probe", "1", 1, 0) == 0; }

 private:
  std::string path_;
};

class EngineTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!dir.supports_attributes()) GTEST_SKIP() << "SKIPPED: " << dir.path() << " has no user.* extended attributes";
    options.disk = &disk;
    options.maintenance_interval = std::chrono::hours(1);
    options.discard_after = std::chrono::hours(1);
    // How many backing files stay open: 1 closes and reopens them all the time.
    if (const char* text = std::getenv("HYDRANT_OPEN_FILES")) options.open_files = std::strtoul(text, nullptr, 10);
  }
  void TearDown() override {
    stop();
    set_error_injection(0);
  }

  // Kernel-like settings: what conformance compares.
  void like_the_kernel() {
    options.naming = Naming::kAtCommit;
    options.presence = Presence::kSparse;
  }
  Engine& engine() {
    if (!engine_) engine_ = Engine::create(options);
    return *engine_;
  }
  void stop() {
    cookies.clear();
    volumes.clear();
    daemon.table.clear();
    channel.reset();
    engine_.reset();
  }

  // --- steps
  int O() { return engine().open_channel({}, &channel); }
  void X() {
    channel.reset();
    if (daemon.table.empty()) settle();
  }
  void settle() { EXPECT_TRUE(engine().settle(Deadline::after(kPatience))); }
  int64_t W(std::string_view command) { return channel->write(as_bytes(command), caller); }
  int64_t R(size_t size) { return channel->read(size, daemon); }
  int64_t Rd() { return R(proto::kMessageBufferSize); }
  unsigned P() { return channel->poll(); }
  bool in() { return P() & EPOLLIN; }
  bool out() { return P() & EPOLLOUT; }
  proto::Message message() { return proto::decode_message(daemon.memory).value(); }
  std::string text() { return std::string(as_text(daemon.memory)); }
  void BO() {
    ASSERT_EQ(O(), 0);
    ASSERT_GT(W("dir " + dir.path()), 0);
    ASSERT_EQ(W("bind ondemand"), 13);
  }
  void bind_original() {
    ASSERT_EQ(O(), 0);
    ASSERT_GT(W("dir " + dir.path()), 0);
    ASSERT_EQ(W("bind"), 4);
  }

  std::shared_ptr<Cookie> cookie(std::string key, std::string volume = "v", CookieOptions with = {}) {
    auto& slot = volumes[volume];
    if (!slot) slot = engine().acquire_volume(volume).value();
    auto made = engine().acquire_cookie(slot, as_bytes(key), std::move(with));
    if (!made) ADD_FAILURE() << made.error().what;
    cookies.push_back(made.value());
    return made.value();
  }
  Outcome use(Cookie& cookie) {
    auto out = std::make_shared<Promise<int>>();
    cookie.use([out](int result) { out->set(result); });
    return out;
  }
  // A consumer read: waits for its blocks.
  Outcome C(Cookie& cookie, uint64_t offset, uint64_t size) {
    auto out = std::make_shared<Promise<int>>();
    last_wait = cookie.ensure({offset, offset + size}, [out](int result) { out->set(result); });
    return out;
  }
  std::shared_ptr<Promise<int>> rel(std::shared_ptr<Cookie>& cookie, bool retire = false) {
    auto out = std::make_shared<Promise<int>>();
    cookie->relinquish(retire, [out] { out->set(0); });
    return out;
  }
  template <class Condition>
  bool eventually(Condition condition, Duration patience = kPatience) {
    auto deadline = Deadline::after(patience);
    while (!condition()) {
      if (deadline.passed()) return false;
      std::this_thread::yield();
    }
    return true;
  }
  // The next message, once there is one.
  proto::Message next() {
    int64_t got = 0;
    EXPECT_TRUE(eventually([&] { return (got = Rd()) != 0; })) << "no message came";
    EXPECT_GT(got, 0);
    return got > 0 ? message() : proto::Message{};
  }
  bool wait_in() {
    return eventually([&] { return in(); });
  }
  Handle& handle(int fd) { return *daemon.table.at(fd); }
  std::string copen(uint32_t id, int64_t size) { return "copen " + std::to_string(id) + "," + std::to_string(size); }

  struct Opened {
    std::shared_ptr<Cookie> cookie;
    proto::Message open;
    int fd = -1;
  };
  // A cookie in use whose OPEN was answered with `size`.
  Opened opened(std::string key, uint64_t size, std::string volume = "v") {
    Opened out;
    out.cookie = cookie(key, volume);
    auto ready = use(*out.cookie);
    out.open = next();
    EXPECT_EQ(out.open.opcode, proto::Opcode::kOpen);
    out.fd = out.open.fd;
    EXPECT_GT(W(copen(out.open.msg_id, static_cast<int64_t>(size))), 0);
    EXPECT_EQ(ready->wait(), 0);
    return out;
  }
  Buffer blocks(size_t bytes, char fill = 'x') { return Buffer(bytes, std::byte(fill)); }
  int cr(int fd, uint32_t id) { return handle(fd).ioctl(proto::kReadComplete, id); }
  std::string read_back(Cookie& cookie, uint64_t offset, size_t size) {
    std::string out(size, '?');
    int64_t got = cookie.read(std::as_writable_bytes(std::span(out.data(), out.size())), offset);
    out.resize(got < 0 ? 0 : static_cast<size_t>(got));
    return out;
  }
  // Drops every reference of the test to the cookie: it is relinquished.
  void forget(std::shared_ptr<Cookie>& cookie) {
    std::erase(cookies, cookie);
    last_wait.reset();
    cookie.reset();
  }
  // Paths of what the cache holds, relative to the root, fan-out directories left out.
  std::vector<std::string> files() {
    std::vector<std::string> out;
    for (auto& entry : std::filesystem::recursive_directory_iterator(dir.path() + "/cache"))
      if (entry.is_regular_file()) out.push_back(std::filesystem::relative(entry.path(), dir.path()));
    return out;
  }

  Scratch dir;
  FakeDisk disk;
  EngineOptions options;
  Caller caller;
  FakeDaemon daemon;
  std::unique_ptr<Engine> engine_;
  std::shared_ptr<Channel> channel;
  std::map<std::string, std::shared_ptr<Volume>> volumes;
  std::vector<std::shared_ptr<Cookie>> cookies;
  std::shared_ptr<Cookie::Wait> last_wait;
};

// The conformance transcripts; their files share it, as GoogleTest wants one class for a suite.
class Transcripts : public EngineTest {};

}  // namespace hydrant::cachefiles::test
