#include "cachefiles/handle.h"

#include <unistd.h>

#include <algorithm>
#include <array>

#include "cachefiles/backing_file.h"
#include "cachefiles/cache.h"
#include "cachefiles/engine_impl.h"
#include "cachefiles/object.h"
#include "cachefiles/trace.h"

namespace hydrant::cachefiles {
namespace {

// Of one write that several fills share.
constexpr size_t kMostParts = 64;
constexpr uint64_t kMostBytes = 1 << 20;

}  // namespace

void Handle::fill(std::span<Fill> fills) {
  for (auto& each : fills) {
    each.written = pwrite(each.bytes, each.offset);
    if (each.msg_id && each.written == static_cast<int64_t>(each.bytes.size()))
      each.completion = ioctl(proto::kReadComplete, *each.msg_id);
  }
}

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

int64_t HandleImpl::pwrite(Bytes bytes, uint64_t offset) { return write_parts({&bytes, 1}, offset, bytes.size()); }

int64_t HandleImpl::write_parts(std::span<const Bytes> parts, uint64_t offset, uint64_t size) {
  // The kernel rounds such an offset down and misplaces the bytes (E3).
  if (offset % kBlockSize != 0) return -ENOBUFS;
  auto file = object_->file();
  if (!file) return -ENOBUFS;
  Cache& cache = object_->cache();
  uint64_t rounded = round_up(size, kBlockSize);
  trace::event(trace::Point::kFdWrite,
               {{"object", object_->debug_id()}, {"inode", file->id().inode}, {"start", offset}, {"len", size}});
  ++cache.engine().counters().writes;
  if (cache.check_space(0, rounded, Cache::Reason::kWrite)) return -ENOBUFS;
  auto blocks = static_cast<int64_t>(rounded / cache.block_size());
  cache.count_writing(blocks);
  int64_t done = file->fill(cache.disk(), object_->proving(), parts, offset);
  cache.count_writing(-blocks);
  if (done > 0 && file->claim_saving()) cache.remember_unsaved(object_);
  return done;
}

void HandleImpl::fill(std::span<Fill> fills) {
  std::array<Bytes, kMostParts> parts;
  for (size_t begin = 0, end; begin < fills.size(); begin = end) {
    // What follows without a gap goes with it: all but the last are whole blocks then.
    uint64_t size = 0;
    for (end = begin; end < fills.size() && end - begin < kMostParts; ++end) {
      const Fill& next = fills[end];
      if (end > begin && (size % kBlockSize != 0 || next.offset != fills[begin].offset + size ||
                          size + next.bytes.size() > kMostBytes || next.bytes.empty()))
        break;
      parts[end - begin] = next.bytes;
      size += next.bytes.size();
    }
    int64_t done = write_parts({parts.data(), end - begin}, fills[begin].offset, size);
    bool alone = end - begin == 1;
    for (auto& each : fills.subspan(begin, end - begin)) {
      auto whole = static_cast<int64_t>(each.bytes.size());
      // What was too much together may do by itself; what stands behind a short write gets a write of its own.
      if (!alone && done <= 0) {
        each.written = pwrite(each.bytes, each.offset);
      } else {
        each.written = std::min(done, whole);
        done -= std::max<int64_t>(each.written, 0);
      }
    }
    object_->cache().read_complete(*object_, fills.subspan(begin, end - begin));
  }
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
  if (number == proto::kProvesWrites) {
    auto file = object_->file();
    return file && file->proves_writes() ? 1 : 0;
  }
  if (number != proto::kReadComplete) return -EINVAL;
  if (argument > UINT32_MAX) return -EINVAL;
  return object_->cache().read_complete(*object_, static_cast<uint32_t>(argument));
}

ChannelImpl::ChannelImpl(std::shared_ptr<Cache> cache) : cache_(std::move(cache)) { cache_->pin(); }
ChannelImpl::~ChannelImpl() { cache_->channel_released(); }

int64_t ChannelImpl::write(Bytes command, const Caller& caller) { return cache_->command(command, caller); }
int64_t ChannelImpl::read(size_t buffer_size, Receiver& receiver) { return cache_->read(buffer_size, receiver); }
unsigned ChannelImpl::poll() { return cache_->poll(); }
size_t ChannelImpl::backlog() const { return cache_->requests().size(); }
void ChannelImpl::on_wake(UniqueFunction<void()> wake) { cache_->on_wake(std::move(wake)); }

}  // namespace hydrant::cachefiles
