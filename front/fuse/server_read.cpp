// READ: the hit, the miss, and the ways a miss ends. The rest of the server is in server.cpp.
#include <cerrno>

#include "base/log.h"
#include "front/fuse/server.h"

namespace hydrant::front {

namespace {
constexpr size_t kSpareBuffers = 4;

void count(std::atomic<uint64_t>& counter) { counter.fetch_add(1, std::memory_order_relaxed); }
}  // namespace

// The hot path: no lock, no allocation, no log line.
void BlobFs::Server::read(const fuse_in_header& header, Bytes body, MutableBytes scratch) {
  if (body.size() < sizeof(fuse_read_in)) return reply(header.unique, -EINVAL);
  auto in = load_le<fuse_read_in>(body.data());
  Blob* blob = table_.find(header.nodeid);
  if (!blob) return reply(header.unique, -ESTALE);
  auto asked = make_range(in.offset, in.size);
  if (!asked || in.size > kMaxRead) return reply(header.unique, -EINVAL);
  ByteRange range = intersect(*asked, {0, blob->file_size});
  if (range.empty()) return reply(header.unique, 0);

  ByteRange wanted = intersect(range, {0, blob->size});
  if (blob->touches && !wanted.empty()) blob->touches->note(wanted);
  if (!wanted.empty() && !blob->cookie->present(wanted)) return miss(header.unique, *blob, range, wanted);
  if (ByteRange ahead = blob->read_ahead.next(range, blob->size); !ahead.empty()) blob->cookie->read_ahead(ahead);
  auto outcome = answer_read(header.unique, *blob, range, scratch);
  if (outcome == Outcome::kGone) return miss(header.unique, *blob, range, wanted);
  count_answer(outcome, counters_.hits);
}

void BlobFs::Server::count_answer(Outcome outcome, std::atomic<uint64_t>& when_given) {
  count(outcome == Outcome::kGiven ? when_given : counters_.errors);
}

BlobFs::Server::Outcome BlobFs::Server::answer_read(uint64_t unique, const Blob& blob, ByteRange range,
                                                    MutableBytes scratch) {
  ByteRange data = intersect(range, {0, blob.size});
  if (!data.empty()) {
    int64_t n = blob.cookie->read(scratch.first(data.size()), data.begin);
    if (n == -ESTALE) return Outcome::kGone;
    // A short read would leave old bytes of the buffer in the reader's page.
    if (n != static_cast<int64_t>(data.size())) {
      log::error("backing-read-failed", {{"offset", data.begin}, {"bytes", data.size()}, {"result", n}});
      reply(unique, -EIO);
      return Outcome::kFailed;
    }
  }
  size_t filled = data.empty() ? 0 : data.size();
  std::memset(scratch.data() + filled, 0, range.size() - filled);
  counters_.bytes.fetch_add(range.size(), std::memory_order_relaxed);
  reply(unique, 0, scratch.first(range.size()));
  return Outcome::kGiven;
}

void BlobFs::Server::miss(uint64_t unique, Blob& blob, ByteRange range, ByteRange wanted) {
  // Our own reference: once the answer is out, the kernel may release the file at any moment.
  auto keep = blob.shared_from_this();
  if (slow_failures_.cover(keep, wanted, Clock::system().now())) {
    count(counters_.errors);
    return reply(unique, -EIO);
  }
  if (!pending_.insert({.unique = unique, .blob = keep, .range = range, .wait = nullptr})) {
    count(counters_.errors);
    return reply(unique, -EIO);
  }
  auto wait =
      keep->cookie->ensure(wanted, [self = shared_from_this(), unique](int status) { self->supplied(unique, status); });
  if (!wait) return;
  if (auto cancel = pending_.attach(unique, std::move(wait))) cancel->cancel();
}

void BlobFs::Server::supplied(uint64_t unique, int status) {
  auto inside = answers_.enter();
  if (!inside) return;
  auto read = pending_.take(unique);
  if (!read) return;  // answered: the time limit passed, or we are stopping
  if (status == -EINTR) {
    count(counters_.interrupted);
    return reply(unique, -EINTR);
  }
  if (status != 0) {
    count(counters_.errors);
    return fail(*read);
  }
  auto buffer = take_buffer();
  auto outcome = answer_read(unique, *read->blob, read->range, MutableBytes(buffer.get(), kMaxRead));
  give_back(std::move(buffer));
  if (outcome != Outcome::kGone) return count_answer(outcome, counters_.misses);
  miss(unique, *read->blob, read->range, intersect(read->range, {0, read->blob->size}));
}

// Of a read that has waited.
void BlobFs::Server::fail(const PendingRead& read) {
  slow_failures_.note(read.blob, read.range, read.since, Clock::system().now());
  reply(read.unique, -EIO);
}

void BlobFs::Server::interrupt(Bytes body) {
  if (body.size() < sizeof(fuse_interrupt_in)) return;
  uint64_t unique = load_le<fuse_interrupt_in>(body.data()).unique;
  // An interrupt has no answer. -EAGAIN would make the kernel repeat it at once, for as long as a read that a hung disk
  // holds is being answered.
  if (auto wait = pending_.interrupt(unique)) wait->cancel();
}

std::unique_ptr<std::byte[]> BlobFs::Server::take_buffer() {
  {
    std::lock_guard lock(buffers_mutex_);
    if (!buffers_.empty()) {
      auto buffer = std::move(buffers_.back());
      buffers_.pop_back();
      return buffer;
    }
  }
  return std::unique_ptr<std::byte[]>(new std::byte[kMaxRead]);  // uninitialized: pages are touched as used
}

void BlobFs::Server::give_back(std::unique_ptr<std::byte[]> buffer) {
  std::lock_guard lock(buffers_mutex_);
  if (buffers_.size() < kSpareBuffers) buffers_.push_back(std::move(buffer));
}

}  // namespace hydrant::front
