#include "cachefiles/handle.h"

#include <unistd.h>

#include "cachefiles/backing_file.h"
#include "cachefiles/cache.h"
#include "cachefiles/engine_impl.h"
#include "cachefiles/object.h"
#include "cachefiles/trace.h"

namespace hydrant::cachefiles {

HandleImpl::HandleImpl(std::shared_ptr<Object> object, int32_t id) : object_(std::move(object)), id_(id) {
  object_->cache().pin();
}

HandleImpl::~HandleImpl() {
  trace::event(trace::Point::kFdRelease, {{"object", object_->debug_id()}, {"object_id", id_}});
  Cache& cache = object_->cache();
  if (auto close = cache.requests().handle_closed(*object_, id_)) close->complete(0);
  cache.wake();
  cache.unpin();
}

int64_t HandleImpl::pwrite(Bytes bytes, uint64_t offset) {
  // The kernel rounds such an offset down and misplaces the bytes (E3).
  if (offset % kBlockSize != 0) return -ENOBUFS;
  auto file = object_->file();
  if (!file) return -ENOBUFS;
  Cache& cache = object_->cache();
  uint64_t size = round_up(bytes.size(), kBlockSize);
  trace::event(
      trace::Point::kFdWrite,
      {{"object", object_->debug_id()}, {"inode", file->id().inode}, {"start", offset}, {"len", bytes.size()}});
  ++cache.engine().counters().writes;
  if (cache.check_space(0, size, Cache::Reason::kWrite)) return -ENOBUFS;
  auto blocks = static_cast<int64_t>(size / cache.block_size());
  cache.count_writing(blocks);
  int64_t done = file->write(cache.disk(), bytes, offset);
  cache.count_writing(-blocks);
  if (done > 0 && file->claim_saving()) cache.remember_unsaved(object_);
  return done;
}

int64_t HandleImpl::write(Bytes bytes) {
  std::lock_guard lock(position_mutex_);
  int64_t done = pwrite(bytes, position_);
  if (done > 0) position_ += static_cast<uint64_t>(done);
  return done;
}

int64_t HandleImpl::lseek(int64_t offset, int whence) {
  auto file = object_->file();
  if (!file) return -ENOBUFS;
  auto fd = file->open();
  if (!fd) return fd.error();
  off_t at = ::lseek(fd.get(), offset, whence);
  return at < 0 ? -errno : at;
}

int HandleImpl::ioctl(uint32_t number, uint64_t argument) {
  if (number != proto::kReadComplete) return -EINVAL;
  if (argument > UINT32_MAX) return -EINVAL;
  return object_->cache().read_complete(*object_, static_cast<uint32_t>(argument));
}

ChannelImpl::ChannelImpl(std::shared_ptr<Cache> cache) : cache_(std::move(cache)) { cache_->pin(); }
ChannelImpl::~ChannelImpl() { cache_->channel_released(); }

int64_t ChannelImpl::write(Bytes command, const Caller& caller) { return cache_->command(command, caller); }
int64_t ChannelImpl::read(size_t buffer_size, Receiver& receiver) { return cache_->read(buffer_size, receiver); }
unsigned ChannelImpl::poll() { return cache_->poll(); }
void ChannelImpl::on_wake(UniqueFunction<void()> wake) { cache_->on_wake(std::move(wake)); }

}  // namespace hydrant::cachefiles
