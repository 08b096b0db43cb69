// The user daemon's end of a control channel, whatever carries it: hydrantd's socket (socket_control.h) or the kernel's
// /dev/cachefiles. Requests come out of `next`, commands go into `write`, data goes into the object's handle.
//
// Results of `write` and of handles are the protocol's own, a count or a negative errno, because the errnos mean
// something to a daemon (-ENOBUFS: not attached yet or disk full; -EINVAL: that request was answered already).
// A lost connection is kGone from `next`, and -EPIPE from these where it is a socket's; it never comes back, the caller
// connects anew and writes `restore`.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "base/byte_range.h"
#include "base/bytes.h"
#include "base/clock.h"
#include "base/error.h"
#include "proto/cachefiles_message.h"

namespace hydrant::fetch {

// Memory to prepare data in, where the transport can take it from without a further copy. Move-only; destroying it
// gives it back.
class Staging {
 public:
  class Owner {
   public:
    virtual ~Owner() = default;
    virtual void give_back(MutableBytes memory) = 0;
  };
  Staging() = default;
  Staging(std::shared_ptr<Owner> owner, MutableBytes memory) : owner_(std::move(owner)), memory_(memory) {}
  Staging(Staging&&) noexcept = default;
  Staging& operator=(Staging&& other) noexcept {
    std::swap(owner_, other.owner_);
    std::swap(memory_, other.memory_);
    return *this;
  }
  ~Staging() {
    if (owner_) owner_->give_back(memory_);
  }
  MutableBytes bytes() const { return memory_; }

 private:
  std::shared_ptr<Owner> owner_;  // shared with the control, whose death must not free memory in use
  MutableBytes memory_;
};

// The write-only handle of one object. Thread-safe: any number of threads may write at once. Destroying it closes it,
// which the cache answers by opening the object anew when data is missing.
class ObjectHandle {
 public:
  virtual ~ObjectHandle() = default;
  // Bytes written (short only when the disk made it so) or -errno. `offset` must be a multiple of 4096, else -ENOBUFS.
  // Any size. -ENOBUFS for a moment after copen, until the cache has attached the backing file. Bytes that stand in
  // memory of stage() are not copied on their way.
  virtual int64_t pwrite(Bytes bytes, uint64_t offset) = 0;
  // Answers a READ: 0 or -errno.
  virtual int64_t complete(uint32_t msg_id) = 0;
  // pwrite, then complete if everything was written, in one turn. The count written, or the first -errno of the two.
  virtual int64_t fill_and_complete(Bytes bytes, uint64_t offset, uint32_t msg_id) {
    int64_t written = pwrite(bytes, offset);
    if (written != static_cast<int64_t>(bytes.size())) return written;
    int64_t completed = complete(msg_id);
    return completed < 0 ? completed : written;
  }
  // As lseek(2) of the backing file; with SEEK_DATA and SEEK_HOLE it tells what nobody has written yet. An offset or
  // -errno: -ENXIO past the last data, -ENOBUFS as pwrite.
  virtual int64_t lseek(int64_t offset, int whence) = 0;
  // Whether the cache hashes what is written against leaves that it has of its own, before it is present: pwrite is
  // -EIO for what does not match. Once true it stays so.
  virtual bool proves_writes() { return false; }
  // At least `size` bytes to prepare a write in, or nothing where the carrier has no such memory or none is free: any
  // memory will do then.
  virtual std::optional<Staging> stage(size_t size) { return (void)size, std::nullopt; }
};

// An object is wanted: answer with `copen <msg_id>,<size>` (or a negative errno), keep the handle.
struct OpenRequest {
  uint32_t msg_id = 0;
  uint32_t object_id = 0;  // names the object in READ and CLOSE until the handle is closed
  std::string volume_key;
  std::string cookie_key;  // bytes
  // Shared by whatever writes the object: readers' fills, prefetch, streams. The last one out closes it.
  std::shared_ptr<ObjectHandle> handle;
};

// Bytes are missing: write them, then complete the msg_id on the object's handle.
struct ReadRequest {
  uint32_t msg_id = 0;
  uint32_t object_id = 0;
  ByteRange range;
};

// The object is withdrawn: drop its handle. Not to be answered.
struct CloseRequest {
  uint32_t msg_id = 0;
  uint32_t object_id = 0;
};

using Request = std::variant<OpenRequest, ReadRequest, CloseRequest>;

// What a message asks. `handle` is that of an OPEN, null for the others.
inline Result<Request> request_of(proto::Message message, std::shared_ptr<ObjectHandle> handle) {
  switch (message.opcode) {
    case proto::Opcode::kOpen:
      return OpenRequest{message.msg_id, message.object_id, std::move(message.volume_key),
                         std::string(as_text(message.cookie_key)), std::move(handle)};
    case proto::Opcode::kRead: return ReadRequest{message.msg_id, message.object_id, message.range};
    case proto::Opcode::kClose: return CloseRequest{message.msg_id, message.object_id};
  }
  return fail(Code::kCorrupt, "unknown request");
}

// What a READ is answered with.
struct Fill {
  ObjectHandle* handle = nullptr;
  Bytes bytes;
  uint64_t offset = 0;
  uint32_t msg_id = 0;
  int64_t result = 0;  // of fill_and_complete
};

// Thread-safe. Handles may outlive their Control, but an attached one's then answer -EPIPE.
class Control {
 public:
  virtual ~Control() = default;

  // The next request. kTooSlow: none came by the deadline. kCancelled: stop() was called. kGone: the connection is
  // lost. A request that cannot be decoded is kCorrupt and is skipped.
  virtual Result<Request> next(Deadline deadline) = 0;
  // Waits for a request, then takes those that came with it, `most` at most. Their number; errors as of `next`.
  virtual Result<size_t> next_some(std::vector<Request>& out, size_t most, Deadline deadline) {
    (void)most;
    HYDRANT_TRY(Request request, next(deadline));
    out.push_back(std::move(request));
    return size_t{1};
  }
  // fill_and_complete of each, under way at the same time where the carrier can do that. Of one handle: in their order.
  virtual void fill_all(std::span<Fill> fills) {
    for (auto& fill : fills) fill.result = fill.handle->fill_and_complete(fill.bytes, fill.offset, fill.msg_id);
  }
  // One command, e.g. "copen 7,8192" or "restore": the command's length or -errno.
  virtual int64_t write(std::string_view command) = 0;
  // Makes every present and future `next` return kCancelled. From any thread.
  virtual void stop() = 0;
};

}  // namespace hydrant::fetch
