// A cache that is not there: an object handle that keeps what it is given and a control channel fed by the test.
#pragma once

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <condition_variable>
#include <deque>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "fetch/transport/control.h"

namespace hydrant::fetch {

// Thread-safe.
class FakeHandle final : public ObjectHandle {
 public:
  // The next writes fail with `err` (positive) this often.
  void refuse(int err, unsigned times) {
    std::lock_guard lock(mutex_);
    refusals_.assign(times, err);
  }
  // Writes are cut to so many bytes.
  void write_at_most(size_t bytes) {
    std::lock_guard lock(mutex_);
    at_most_ = bytes;
  }

  // As a cache that has leaves: what differs from `right` is refused. The bytes outlive the handle's writers.
  void prove_against(Bytes right) {
    std::lock_guard lock(mutex_);
    right_ = right;
  }
  bool proves_writes() override {
    std::lock_guard lock(mutex_);
    ++asked_;
    return right_.has_value();
  }
  // Calls of proves_writes().
  unsigned asked() const {
    std::lock_guard lock(mutex_);
    return asked_;
  }

  int64_t pwrite(Bytes bytes, uint64_t offset) override {
    std::lock_guard lock(mutex_);
    ++writes_;
    if (right_ && !std::ranges::equal(bytes, right_->subspan(offset, bytes.size()))) return -EIO;
    if (!refusals_.empty()) {
      int err = refusals_.front();
      refusals_.pop_front();
      return -err;
    }
    if (offset % 4096 != 0) return -ENOBUFS;
    bytes = bytes.first(std::min(bytes.size(), at_most_));
    if (content_.size() < offset + bytes.size()) content_.resize(offset + bytes.size());
    std::copy(bytes.begin(), bytes.end(), content_.begin() + static_cast<ptrdiff_t>(offset));
    written_.insert(offset);
    for (uint64_t at = offset; at < offset + bytes.size(); at += 4096) blocks_.insert(at / 4096);
    changed_.notify_all();
    return static_cast<int64_t>(bytes.size());
  }
  int64_t complete(uint32_t msg_id) override {
    std::lock_guard lock(mutex_);
    completed_.push_back(msg_id);
    changed_.notify_all();
    return 0;
  }

  // The next lookups find no file.
  void lose_file(unsigned times) {
    std::lock_guard lock(mutex_);
    lookups_lost_ = times;
  }

  // Data is what was written, by blocks of 4096 bytes.
  int64_t lseek(int64_t offset, int whence) override {
    std::lock_guard lock(mutex_);
    if (lookups_lost_ > 0) return --lookups_lost_, -ENOBUFS;
    auto block = static_cast<uint64_t>(offset) / 4096;
    const uint64_t blocks = (content_.size() + 4095) / 4096;
    for (; block < blocks && blocks_.contains(block) != (whence == SEEK_DATA); ++block) {
    }
    if (whence == SEEK_DATA && block >= blocks) return -ENXIO;
    return std::max<int64_t>(offset, static_cast<int64_t>(block * 4096));
  }

  // As a cache that discards what it has.
  void lose(ByteRange range) {
    std::lock_guard lock(mutex_);
    for (uint64_t block = range.begin / 4096; block * 4096 < range.end; ++block) blocks_.erase(block);
  }

  bool wait_for_completions(size_t count, Deadline deadline) {
    std::unique_lock lock(mutex_);
    return changed_.wait_until(lock, deadline.at(), [&] { return completed_.size() >= count; });
  }
  // Until a write began at `offset`.
  bool wait_for_content(uint64_t offset, Deadline deadline) {
    std::unique_lock lock(mutex_);
    return changed_.wait_until(lock, deadline.at(), [&] { return written_.contains(offset); });
  }
  std::vector<uint32_t> completed() const {
    std::lock_guard lock(mutex_);
    return completed_;
  }
  // Bytes never written are zeros.
  Buffer content(ByteRange range) const {
    std::lock_guard lock(mutex_);
    Buffer out(range.size());
    for (uint64_t at = range.begin; at < std::min<uint64_t>(range.end, content_.size()); ++at)
      out[at - range.begin] = content_[at];
    return out;
  }
  size_t writes() const {
    std::lock_guard lock(mutex_);
    return writes_;
  }

 private:
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<int> refusals_;
  std::optional<Bytes> right_;
  size_t at_most_ = SIZE_MAX;
  Buffer content_;
  std::vector<uint32_t> completed_;
  std::set<uint64_t> written_;
  unsigned lookups_lost_ = 0;
  std::set<uint64_t> blocks_;  // that hold data
  size_t writes_ = 0;
  unsigned asked_ = 0;
};

// Thread-safe.
class FakeControl final : public Control {
 public:
  void push(Request request) {
    std::lock_guard lock(mutex_);
    requests_.push_back(std::move(request));
    changed_.notify_all();
  }
  void lose() {
    std::lock_guard lock(mutex_);
    lost_ = true;
    changed_.notify_all();
  }
  bool wait_for_commands(size_t count, Deadline deadline) {
    std::unique_lock lock(mutex_);
    return changed_.wait_until(lock, deadline.at(), [&] { return commands_.size() >= count; });
  }
  std::vector<std::string> commands() const {
    std::lock_guard lock(mutex_);
    return commands_;
  }

  Result<Request> next(Deadline deadline) override {
    std::unique_lock lock(mutex_);
    changed_.wait_until(lock, deadline.at(), [&] { return stopped_ || lost_ || !requests_.empty(); });
    if (stopped_) return fail(Code::kCancelled, "stopped");
    if (lost_) return fail(Code::kGone, "lost");
    if (requests_.empty()) return fail(Code::kTooSlow, "nothing");
    Request request = std::move(requests_.front());
    requests_.pop_front();
    return request;
  }
  int64_t write(std::string_view command) override {
    std::lock_guard lock(mutex_);
    if (lost_) return -EPIPE;
    commands_.emplace_back(command);
    changed_.notify_all();
    return static_cast<int64_t>(command.size());
  }
  void stop() override {
    std::lock_guard lock(mutex_);
    stopped_ = true;
    changed_.notify_all();
  }

 private:
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Request> requests_;
  std::vector<std::string> commands_;
  bool lost_ = false;
  bool stopped_ = false;
};

}  // namespace hydrant::fetch
