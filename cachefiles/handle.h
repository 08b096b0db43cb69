// The daemon's write-only handle of one object, and the control channel it came through.
#pragma once

#include <memory>
#include <mutex>

#include "base/small_mutex.h"
#include "cachefiles/engine.h"

namespace hydrant::cachefiles {

class BackingFile;
class Cache;
class Object;

// Pins the cache. Its destructor is the last close of spec 6.6.
class HandleImpl final : public Handle {
 public:
  HandleImpl(std::shared_ptr<Object> object, int32_t id);
  ~HandleImpl() override;

  int64_t pwrite(Bytes bytes, uint64_t offset) override;
  int64_t write(Bytes bytes) override;
  int64_t lseek(int64_t offset, int whence) override;
  int ioctl(uint32_t number, uint64_t argument) override;
  void fill(std::span<Fill> fills) override;

 private:
  // Bytes that follow each other at `offset`, and how many of them.
  int64_t write_parts(std::span<const Bytes> parts, uint64_t offset, uint64_t size);

  const std::shared_ptr<Object> object_;
  const int32_t id_;
  SmallMutex position_mutex_;  // one plain write at a time, as a file's position lock
  uint64_t position_ = 0;
};

class ChannelImpl final : public Channel {
 public:
  explicit ChannelImpl(std::shared_ptr<Cache> cache);
  ~ChannelImpl() override;

  int64_t write(Bytes command, const Caller& caller) override;
  int64_t read(size_t buffer_size, Receiver& receiver) override;
  unsigned poll() override;
  size_t backlog() const override;
  void on_wake(UniqueFunction<void()> wake) override;

 private:
  const std::shared_ptr<Cache> cache_;
};

}  // namespace hydrant::cachefiles
