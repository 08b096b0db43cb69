// A kernel client in a process of its own, behind the preload library; and the engine that it talks to.
#pragma once

#include <gtest/gtest.h>
#include <linux/close_range.h>
#include <poll.h>
#include <spawn.h>
#include <sys/wait.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <future>
#include <memory>
#include <string>
#include <vector>

#include "base/unix_socket.h"
#include "cachefiles/harness.h"
#include "daemon/channel_server.h"

namespace hydrant::shim_test {

using namespace std::chrono_literals;

inline Deadline soon() { return Deadline::after(60s); }

class Process {
 public:
  Process(const std::vector<std::string>& arguments, const std::vector<std::string>& environment) {
    int to[2], from[2];
    if (::pipe2(to, O_CLOEXEC) || ::pipe2(from, O_CLOEXEC)) std::abort();
    in_.reset(to[1]);
    out_.reset(from[0]);
    posix_spawn_file_actions_t actions;
    ::posix_spawn_file_actions_init(&actions);
    ::posix_spawn_file_actions_adddup2(&actions, to[0], 0);
    ::posix_spawn_file_actions_adddup2(&actions, from[1], 1);
    // The tests count on 3 being the first free number, whatever whoever runs them has left open.
    ::posix_spawn_file_actions_addclosefrom_np(&actions, 3);
    auto pointers = [](const std::vector<std::string>& words) {
      std::vector<char*> all;
      for (auto& word : words) all.push_back(const_cast<char*>(word.c_str()));
      all.push_back(nullptr);
      return all;
    };
    auto words = pointers(arguments);
    auto entries = pointers(environment);
    int err = ::posix_spawn(&pid_, words[0], &actions, nullptr, words.data(), entries.data());
    EXPECT_EQ(err, 0) << arguments[0];
    ::posix_spawn_file_actions_destroy(&actions);
    ::close(to[0]);
    ::close(from[1]);
  }
  Process(const Process&) = delete;
  ~Process() { finish(); }

  void send(const std::string& line) {
    std::string text = line + "\n";
    ASSERT_EQ(::write(in_.get(), text.data(), text.size()), ssize_t(text.size()));
  }
  // "" at the end.
  std::string receive() {
    std::string line;
    for (;;) {
      if (!wait_fd(out_.get(), POLLIN, soon())) return ADD_FAILURE() << "no answer", "";
      char byte;
      if (::read(out_.get(), &byte, 1) <= 0) return line;
      if (byte == '\n') return line;
      line += byte;
    }
  }
  // What wait(2) says. Ends its input first.
  int finish() {
    in_.reset();
    if (pid_ <= 0) return status_;
    // A test that has failed does not wait for ever.
    if (::testing::Test::HasFailure()) ::kill(pid_, SIGKILL);
    ::waitpid(std::exchange(pid_, -1), &status_, 0);
    return status_;
  }
  void kill() { ::kill(pid_, SIGKILL); }
  pid_t pid() const { return pid_; }

 private:
  pid_t pid_ = -1;
  int status_ = -1;
  Fd in_, out_;
};

class Shim : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!scratch_.supports_attributes()) GTEST_SKIP() << "no usable file system for a cache";
    root_ = scratch_.path() + "/root";
    std::filesystem::create_directory(root_);
    engine_ = cachefiles::Engine::create({.disk = &disk_});
    auto listener = listen_unix(socket(), SocketType::kSeqPacket).value();
    daemon::ChannelServerOptions options;
    options.allowed_uid = ::getuid();
    server_ = daemon::ChannelServer::start(*engine_, nullptr, std::move(listener), options).value();
  }
  void TearDown() override {
    clients_.clear();
    volume_.reset();
    server_.reset();
    engine_.reset();
  }
  std::string socket() const { return scratch_.path() + "/channel.sock"; }
  std::vector<std::string> environment() const {
    return {"LD_PRELOAD=" SHIM_LIBRARY, "HYDRANT_CACHEFILES_SOCKET=" + socket(), "PATH=/usr/bin:/bin"};
  }
  Process& start() {
    clients_.push_back(std::make_unique<Process>(std::vector<std::string>{SHIM_CLIENT}, environment()));
    return *clients_.back();
  }
  // One line to the first client, and its answer.
  std::string text(const std::string& line) {
    if (clients_.empty()) start();
    clients_.front()->send(line);
    return clients_.front()->receive();
  }
  void start_line(const std::string& line) { clients_.front()->send(line); }
  long call(const std::string& line) { return std::atol(text(line).c_str()); }
  int open() {
    fd_ = static_cast<int>(call("open open 2"));
    EXPECT_GE(fd_, 0);
    return fd_;
  }
  std::string fd() const { return std::to_string(fd_); }
  long write(const std::string& command) { return call("write write " + fd() + " " + command); }
  // BO of the transcripts.
  void bind(const std::string& mode = " ondemand") {
    open();
    ASSERT_EQ(write("dir " + root_), long(4 + root_.size()));
    ASSERT_EQ(write("bind" + mode), long(4 + mode.size()));
  }
  // "result revents" of the device.
  std::string poll(const std::string& how = "poll", int timeout = 0) {
    return text("poll " + how + " " + std::to_string(timeout) + " " + fd() + " " + std::to_string(POLLIN | POLLOUT));
  }

  struct Object {
    std::shared_ptr<cachefiles::Cookie> cookie;
    cachefiles::test::Outcome active = std::make_shared<cachefiles::test::Promise<int>>();
  };
  // U(v,c) of the transcripts.
  Object use(const std::string& key) {
    Object object;
    if (!volume_) volume_ = engine_->acquire_volume("erofs,test").value();  // it costs 256 directories
    object.cookie = engine_->acquire_cookie(volume_, as_bytes(key)).value();
    object.cookie->use([active = object.active](int result) { active->set(result); });
    return object;
  }
  // C[a,l]
  cachefiles::test::Outcome ensure(const Object& object, uint64_t offset, uint64_t length) {
    auto outcome = std::make_shared<cachefiles::test::Promise<int>>();
    object.cookie->ensure({offset, offset + length}, [outcome](int result) { outcome->set(result); });
    return outcome;
  }
  std::string bytes_of(const Object& object, uint64_t offset, size_t length) {
    std::string out(length, '\0');
    auto got = object.cookie->read(std::as_writable_bytes(std::span(out)), offset);
    return got < 0 ? "error " + std::to_string(got) : out.substr(0, size_t(got));
  }
  // A message as the client got it; fields by offset.
  struct Message {
    long result = 0;
    Buffer bytes;
    uint32_t u32(size_t at) const { return at + 4 <= bytes.size() ? load_le<uint32_t>(bytes.data() + at) : 0; }
    uint64_t u64(size_t at) const { return at + 8 <= bytes.size() ? load_le<uint64_t>(bytes.data() + at) : 0; }
    std::string id() const { return std::to_string(u32(0)); }
    std::string handle() const { return std::to_string(u32(24)); }
  };
  Message read(const std::string& how = "read", size_t size = 1024) {
    std::string answer = text("read " + how + " " + fd() + " " + std::to_string(size));
    Message message{.result = std::atol(answer.c_str()), .bytes = {}};
    size_t at = answer.find(' ');
    if (at != answer.npos)
      for (++at; at + 1 < answer.size(); at += 2)
        message.bytes.push_back(std::byte(std::stoi(answer.substr(at, 2), nullptr, 16)));
    return message;
  }
  // Reads until there is a message: some come from other threads.
  Message next() {
    EXPECT_EQ(text("poll poll 30000 " + fd() + " 1"), "1 1");
    return read();
  }
  // U, OPEN delivered, copen.
  Object opened(const std::string& key, uint64_t size, std::string* handle) {
    Object object = use(key);
    Message message = next();
    *handle = message.handle();
    std::string copen = "copen " + message.id() + "," + std::to_string(size);
    EXPECT_EQ(write(copen), long(copen.size()));
    EXPECT_EQ(object.active->wait(), 0);
    return object;
  }

  cachefiles::test::Scratch scratch_;
  cachefiles::test::FakeDisk disk_;
  std::string root_;
  std::unique_ptr<cachefiles::Engine> engine_;
  std::unique_ptr<daemon::ChannelServer> server_;
  std::shared_ptr<cachefiles::Volume> volume_;
  std::vector<std::unique_ptr<Process>> clients_;
  int fd_ = -1;
};

}  // namespace hydrant::shim_test
