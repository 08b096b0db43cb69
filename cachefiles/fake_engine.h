// An engine without a cache, for tests of whatever carries its control channel: messages are put in by the test,
// writes and completions are recorded. Consumers (volumes, cookies) are refused.
#pragma once

#include <sys/epoll.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <deque>
#include <future>
#include <map>
#include <mutex>
#include <string>
#include <vector>

#include "cachefiles/engine.h"
#include "proto/cachefiles_message.h"

namespace hydrant::cachefiles {

// What one handle saw. Thread-safe.
struct FakeObject {
  std::mutex mutex;
  std::map<uint64_t, Buffer> writes;  // by offset
  std::vector<uint32_t> completed;
  std::vector<std::string> calls;  // in their order, by name
  uint64_t position = 0;
  std::atomic<int> open_handles{0};
  std::atomic<uint64_t> bytes{0};
  std::atomic<int64_t> answer{0};  // not 0: what every pwrite answers instead of writing
  std::shared_future<void> hold;   // a pwrite waits for it, as for a slow disk
  std::atomic<bool> record{true};  // false: count bytes and completions only
  std::atomic<uint64_t> completions{0};

  template <class F>
  auto locked(F f) {
    std::lock_guard lock(mutex);
    return f(*this);
  }
};

class FakeHandle final : public Handle {
 public:
  explicit FakeHandle(std::shared_ptr<FakeObject> object) : object_(std::move(object)) { ++object_->open_handles; }
  ~FakeHandle() override { --object_->open_handles; }
  int64_t pwrite(Bytes bytes, uint64_t offset) override {
    if (object_->hold.valid()) object_->hold.wait();
    if (offset % 4096) return -ENOBUFS;
    if (int64_t answer = object_->answer) return answer;
    if (object_->record)
      object_->locked([&](FakeObject& o) {
        o.writes[offset] = to_buffer(bytes);
        o.calls.push_back("pwrite");
      });
    object_->bytes += bytes.size();  // last: who waits for the count finds the record
    return int64_t(bytes.size());
  }
  int64_t write(Bytes bytes) override {
    return object_->locked([&](FakeObject& o) {
      o.writes[o.position] = to_buffer(bytes);
      o.position += bytes.size();
      return int64_t(bytes.size());
    });
  }
  int64_t lseek(int64_t offset, int whence) override { return whence == 0 ? offset : -EINVAL; }
  int ioctl(uint32_t number, uint64_t argument) override {
    if (number != proto::kReadComplete) return -EINVAL;
    ++object_->completions;
    object_->completions.notify_all();
    if (object_->record)
      object_->locked([&](FakeObject& o) {
        o.completed.push_back(uint32_t(argument));
        o.calls.push_back("complete");
      });
    return argument == 0xbad ? -EINVAL : 0;
  }

 private:
  std::shared_ptr<FakeObject> object_;  // shared with the test
};

class FakeChannel final : public Channel {
 public:
  int64_t write(Bytes command, const Caller& caller) override {
    std::string text(as_text(command));
    UniqueFunction<void()> wake;
    {
      std::lock_guard lock(mutex_);
      commands_.push_back(text);
      last_cwd_ = caller.cwd;
      if (text == "refuse") return -EINVAL;
      if (text == "restore") {
        for (auto& message : delivered_) queue_.push_back(std::move(message));
        delivered_.clear();
      }
    }
    if (text == "restore") notify();
    return int64_t(command.size());
  }
  int64_t read(size_t buffer_size, Receiver& receiver) override {
    Item item;
    {
      std::lock_guard lock(mutex_);
      if (queue_.empty()) return 0;
      if (queue_.front().message.size > buffer_size) return -EMSGSIZE;
      item = std::move(queue_.front());
      queue_.pop_front();
      delivered_.push_back(item);
      if (delivered_.size() > kRemembered) delivered_.pop_front();
    }
    std::shared_ptr<Handle> handle;
    int fd = -1;
    if (item.object) {
      fd = receiver.reserve_fd();
      if (fd < 0) return fd;
      handle = std::make_shared<FakeHandle>(item.object);
    }
    return receiver.deliver(item.message.bytes(), std::move(handle), fd) ? int64_t(item.message.size) : -EFAULT;
  }
  unsigned poll() override {
    std::lock_guard lock(mutex_);
    return queue_.empty() ? 0 : unsigned(EPOLLIN);
  }
  void on_wake(UniqueFunction<void()> wake) override {
    auto shared = std::make_shared<UniqueFunction<void()>>(std::move(wake));
    std::lock_guard lock(mutex_);
    wake_ = std::move(shared);
  }

  size_t backlog() const override { return waiting_reads; }
  std::atomic<size_t> waiting_reads{0};  // what backlog() says

  void push_open(uint32_t msg_id, std::shared_ptr<FakeObject> object, std::string_view key = "key") {
    push({proto::encode_open({msg_id, msg_id + 1}, "erofs,test", as_bytes(key), 77), std::move(object)});
  }
  void push_read(uint32_t msg_id, ByteRange range) { push({proto::encode_read({msg_id, 1}, range), nullptr}); }
  void push_close(uint32_t msg_id) { push({proto::encode_close({msg_id, 1}), nullptr}); }

  std::vector<std::string> commands() {
    std::lock_guard lock(mutex_);
    return commands_;
  }
  int last_cwd() {
    std::lock_guard lock(mutex_);
    return last_cwd_;
  }
  size_t waiting() {
    std::lock_guard lock(mutex_);
    return queue_.size();
  }

 private:
  static constexpr size_t kRemembered = 4096;
  struct Item {
    proto::EncodedMessage message;
    std::shared_ptr<FakeObject> object;
  };
  void push(Item item) {
    {
      std::lock_guard lock(mutex_);
      queue_.push_back(std::move(item));
    }
    notify();
  }
  void notify() {
    std::shared_ptr<UniqueFunction<void()>> wake;
    {
      std::lock_guard lock(mutex_);
      wake = wake_;
    }
    if (wake) (*wake)();
  }

  std::mutex mutex_;
  std::deque<Item> queue_;
  std::deque<Item> delivered_;  // the last ones, for restore
  std::vector<std::string> commands_;
  int last_cwd_ = -1;
  std::shared_ptr<UniqueFunction<void()>> wake_;  // shared with a notify that is under way
};

class FakeEngine final : public Engine {
 public:
  int open_channel(const Caller&, std::shared_ptr<Channel>* channel) override {
    std::lock_guard lock(mutex_);
    if (!open_.expired()) return -EBUSY;
    auto made = std::make_shared<FakeChannel>();
    open_ = made;
    *channel = made;
    return 0;
  }
  Result<std::shared_ptr<Volume>> acquire_volume(std::string_view, Bytes) override {
    return fail(Code::kUnsupported, "fake engine");
  }
  Result<std::shared_ptr<Cookie>> acquire_cookie(std::shared_ptr<Volume>, Bytes, CookieOptions) override {
    return fail(Code::kUnsupported, "fake engine");
  }
  Result<> flush() override { return {}; }
  bool settle(Deadline) override { return true; }
  Listing listing(size_t) override { return {}; }

  // The channel that is open now, or null.
  std::shared_ptr<FakeChannel> opened() {
    std::lock_guard lock(mutex_);
    return open_.lock();
  }

 private:
  std::mutex mutex_;
  std::weak_ptr<FakeChannel> open_;
};

}  // namespace hydrant::cachefiles
