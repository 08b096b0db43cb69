// The request table of one cache (spec 6.3 to 6.7, 6.9): what waits for the user daemon, in which order it is
// delivered, and the on-demand state of each object. One lock guards all of it, so no state is ever seen between two
// steps.
//
// Exactly once: whoever takes a request out of the table owns its completion, and completes it after unlocking.
#pragma once

#include <atomic>
#include <bitset>
#include <cstdint>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <unordered_map>
#include <vector>

#include "base/byte_range.h"
#include "base/bytes.h"
#include "base/unique_function.h"
#include "proto/cachefiles_message.h"

namespace hydrant::cachefiles {

class Object;
using proto::Opcode;

struct Request {
  Opcode opcode;
  std::shared_ptr<Object> object;
  ByteRange range;                 // READ
  UniqueFunction<void(int)> done;  // 0 or -errno; called once, under no lock
  bool reopen = false;             // an OPEN that no lookup waits for

  // Guarded by the table.
  uint32_t id = 0;
  bool pending = false;     // in the table
  bool fresh = false;       // NEW: not delivered, or re-armed
  Request* next = nullptr;  // of the object's; so for the previous one
  Request* previous = nullptr;

  // By whoever took it out of the table.
  void complete(int result) {
    auto callback = std::move(done);
    if (callback) callback(result);
  }
};
using RequestPtr = std::shared_ptr<Request>;  // the table, the waiter that may cancel, a reader that is delivering

// The on-demand record of an object. Guarded by its cache's RequestTable.
struct OnDemand {
  enum class State : uint8_t { kClose, kOpen, kReopening, kDropping };
  State state = State::kClose;
  bool reopen_pending = false;  // its OPEN is in the table
  bool reopen_again = false;    // asked for while one was pending
  int32_t id = 0;               // 0 never delivered, -1 closed by the daemon
  Request* requests = nullptr;  // a list of those in the table, the youngest first
};

// Numbers that are given out one after the other: a bit each, a page of them at a time. Not thread-safe.
class IdSet {
 public:
  bool contains(int32_t id) const {
    auto page = pages_.find(id / kPage);
    return page != pages_.end() && page->second.test(size_t(id % kPage));
  }
  void insert(int32_t id) {
    auto& page = pages_[id / kPage];
    size_ += !page.test(size_t(id % kPage));
    page.set(size_t(id % kPage));
  }
  void erase(int32_t id) {
    auto page = pages_.find(id / kPage);
    if (page == pages_.end() || !page->second.test(size_t(id % kPage))) return;
    page->second.reset(size_t(id % kPage));
    --size_;
    if (page->second.none()) pages_.erase(page);
  }
  void clear() {
    pages_.clear();
    size_ = 0;
  }
  size_t size() const { return size_; }

 private:
  static constexpr int32_t kPage = 512;
  std::unordered_map<int32_t, std::bitset<kPage>> pages_;
  size_t size_ = 0;
};

// Thread-safe.
class RequestTable {
 public:
  // Steps 5 to 8 of spec 6.3. 0, or -EIO (dead, or the object drops), -ENOENT (CLOSE of an object that is not open).
  int add(const RequestPtr& request);
  // True when the request was there: the caller completes it.
  bool remove(const RequestPtr& request);

  struct Taken {
    RequestPtr request;
    proto::MessageIds ids;
    int64_t result = 0;  // 0: nothing; -EMSGSIZE; else the size of the message
    // Objects whose reopen begins now: the caller queues their OPENs.
    std::vector<std::shared_ptr<Object>> reopen;
  };
  // Steps 1 to 5 of spec 6.4. A CLOSE leaves the table here; OPEN and READ stay until they are answered.
  Taken take(size_t buffer_size);
  bool deliverable() const;

  // Gives an object its next id (spec 6.5); -EEXIST when it has one, -EBUSY when there is none. A failure uses an id
  // up, too, as it does in the kernel.
  int64_t assign_id(Object& object);
  // A delivery found no descriptor.
  void delivery_failed(Object& object);
  // The last reference to the object's handle is gone (spec 6.6). Yields a CLOSE to complete with 0, if any.
  RequestPtr handle_closed(Object& object, int32_t id);

  // Spec 3.6 steps 5 to 11. `size` is what the daemon's text said: a value, or the parse error in `parse_error`.
  struct Answer {
    int result = 0;      // of the write
    RequestPtr request;  // to complete with `completion`
    int completion = 0;
    bool opened = false;
  };
  // `take_size` gives the object its size or refuses it with -errno, which fails the OPEN and not the write.
  Answer answer_open(uint64_t id, int64_t size, int parse_error,
                     UniqueFunction<int(const Request&, uint64_t)> take_size);
  // Spec 6.2 step 3; null: -EINVAL.
  RequestPtr answer_read(uint32_t id, const Object& object);
  // The same for several, with one lock: calls `found(index, request)` under it for each of `count` ids.
  template <class IdOf, class Found>
  void answer_reads(size_t count, const Object& object, IdOf id_of, Found found) {
    std::lock_guard lock(mutex_);
    for (size_t i = 0; i < count; ++i)
      if (auto id = id_of(i)) found(i, take_read(*id, object));
  }
  // What follows the end of a reopen's OPEN. READs to complete with -EIO; `again`: queue another OPEN.
  std::vector<RequestPtr> reopen_finished(Object& object, int result, bool* again);
  bool object_open(const Object& object) const;
  bool id_is_zero(const Object& object) const;
  // A lookup's OPEN could not be created.
  void open_failed(Object& object);

  void restore();
  // Takes everything out, for -EIO; from now on `add` answers -EIO.
  std::vector<RequestPtr> flush();
  // DROPPING, and everything of the object, for -EIO.
  std::vector<RequestPtr> drop(Object& object);
  size_t size() const { return size_.load(std::memory_order_relaxed); }

 private:
  // All under mutex_.
  RequestPtr take_read(uint32_t id, const Object& object);
  void erase(Request& request);
  void arm(Request& request);    // NEW: deliverable unless its object reopens
  void unblock(Object& object);  // its NEW READs become deliverable again
  std::vector<RequestPtr> take_fresh_reads(Object& object);
  int32_t take_object_id();  // -1: none is free

  mutable std::mutex mutex_;
  bool dead_ = false;
  uint32_t next_id_ = 0;
  uint32_t cursor_ = 0;
  int32_t next_object_id_ = 1;
  std::unordered_map<uint32_t, RequestPtr> requests_;
  std::atomic<size_t> size_{0};  // of requests_; a hint to whoever has no lock
  // NEW requests but READs of reopening objects: what a scan has to look at, in its order.
  std::set<uint32_t> deliverable_;
  IdSet object_ids_;
};

// Completes each with -EIO.
void fail_all(std::vector<RequestPtr> requests);

}  // namespace hydrant::cachefiles
