// A cookie without an engine: a sparse file that is filled with the oracle's bytes by a thread of its own, or not.
#pragma once

#include <atomic>
#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

#include "base/file.h"
#include "cachefiles/engine.h"
#include "tests/front/kernel_test.h"

namespace hydrant::testing {

class FakeCookie final : public cachefiles::Cookie {
 public:
  enum class Mood { kFill, kHold, kFail };
  using Content = std::function<void(uint64_t offset, MutableBytes out)>;

  enum class File { kNew, kExists };

  FakeCookie(const std::string& path, uint64_t size, Content content, File file = File::kNew)
      : path_(path), size_(size), content_(std::move(content)), present_((size + 4095) / 4096) {
    fd_ = *open_file(path, O_RDWR | O_CREAT | (file == File::kNew ? O_TRUNC : 0));
    if (file == File::kNew) {
      EXPECT_EQ(::ftruncate(fd_.get(), static_cast<off_t>(size)), 0);
    }
    daemon_ = std::jthread([this](std::stop_token stop) { serve(stop); });
  }
  ~FakeCookie() override {
    daemon_.request_stop();
    changed_.notify_all();
    if (daemon_.joinable()) daemon_.join();
    for (auto& request : queue_) request->finish(-EIO);
  }

  void set_mood(Mood mood) {
    std::lock_guard lock(mutex_);
    mood_ = mood;
    changed_.notify_all();
  }
  // From now on a cancelled request keeps its place, as one whose answer is on its way already.
  void ignore_cancels() { deaf_ = true; }
  // Fills what was asked for first, and says so before it returns.
  void serve_first() {
    std::unique_lock lock(mutex_);
    ASSERT_FALSE(queue_.empty());
    auto request = queue_.front();
    queue_.pop_front();
    lock.unlock();
    fill(request->range);
    request->finish(0);
  }
  uint64_t requests() const { return requests_; }
  uint64_t cancelled() const { return cancelled_; }

  void use(UniqueFunction<void(int)> ready) override { ready(0); }
  void unuse() override {}
  char state() const override { return 'A'; }
  uint64_t size() const override { return size_; }
  bool present(ByteRange range) const override {
    for (uint64_t block = range.begin / 4096; block * 4096 < range.end; ++block)
      if (!present_[block]) return false;
    return true;
  }
  bool complete() const override { return present({0, size_}); }

  std::shared_ptr<Wait> ensure(ByteRange range, UniqueFunction<void(int)> done) override {
    auto request = std::make_shared<Request>(*this, range, std::move(done));
    ++requests_;
    std::lock_guard lock(mutex_);
    queue_.push_back(request);
    changed_.notify_all();
    return request;
  }
  void read_ahead(ByteRange) override {}
  int64_t read(MutableBytes out, uint64_t offset) override {
    auto n = pread_some(fd_.get(), out, offset);
    return n ? static_cast<int64_t>(*n) : -EIO;
  }
  // As if the cookie had got another file.
  void replace() { replaced_ = true; }
  bool is_backing_file(uint64_t, uint64_t) const override { return !replaced_; }
  Result<Fd> backing_file() override { return open_file(path_, O_RDONLY); }
  int64_t write(Bytes, uint64_t) override { return -ENOBUFS; }
  int resize(uint64_t) override { return -EOPNOTSUPP; }
  void invalidate() override {}
  void relinquish(bool, UniqueFunction<void()> done) override { done(); }
  Stat stat() const override {
    return {.size = size_, .present_bytes = 0, .durable_bytes = 0, .reads_requested = requests_};
  }

 private:
  struct Request final : Wait {
    Request(FakeCookie& c, ByteRange r, UniqueFunction<void(int)> d) : cookie(c), range(r), done(std::move(d)) {}
    void cancel() override {
      ++cookie.cancelled_;
      if (!cookie.deaf_) finish(-EINTR);
    }
    void finish(int status) {
      if (!finished.exchange(true)) done(status);
    }
    FakeCookie& cookie;
    ByteRange range;
    UniqueFunction<void(int)> done;
    std::atomic<bool> finished{false};
  };

  void serve(std::stop_token stop) {
    std::unique_lock lock(mutex_);
    for (;;) {
      changed_.wait(lock, stop, [&] { return !queue_.empty() && mood_ != Mood::kHold; });
      if (stop.stop_requested()) return;
      auto request = queue_.front();
      queue_.pop_front();
      bool failing = mood_ == Mood::kFail;
      lock.unlock();
      if (!failing) fill(request->range);
      request->finish(failing ? -EIO : 0);
      request.reset();
      lock.lock();
    }
  }
  void fill(ByteRange range) {
    range = align_outward(range, 4096);
    Buffer bytes(std::min(range.end, size_) - range.begin);
    content_(range.begin, bytes);
    EXPECT_TRUE(pwrite_all(fd_.get(), bytes, range.begin));
    for (uint64_t block = range.begin / 4096; block < range.end / 4096; ++block) present_[block] = true;
  }

  std::string path_;
  Fd fd_;
  const uint64_t size_;
  Content content_;
  std::vector<std::atomic<bool>> present_;
  std::atomic<uint64_t> requests_{0}, cancelled_{0};
  std::atomic<bool> replaced_{false}, deaf_{false};
  std::mutex mutex_;
  std::condition_variable_any changed_;
  std::deque<std::shared_ptr<Request>> queue_;
  Mood mood_ = Mood::kFill;
  std::jthread daemon_;
};

}  // namespace hydrant::testing
