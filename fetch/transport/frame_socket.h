// A packet socket on which many threads ask and each waits for its own answer.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <optional>
#include <unordered_map>

#include "base/bytes.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/fd.h"
#include "base/unique_function.h"
#include "proto/channel.h"

namespace hydrant::fetch {

// Thread-safe. There is no reading thread: of those who wait one reads, hands the others theirs, and passes the role on
// when it has its own. So an answer wakes the thread that wants it and no other, in the common case of one waiter.
class FrameSocket {
 public:
  using Lock = std::unique_lock<std::mutex>;
  struct Answer {
    int64_t result = 0;
    int32_t completion = 0;  // of a PWRITE that completes
  };
  // Gets answers that no call waits for, in their order, under the lock. Must not call back.
  using Delivery = UniqueFunction<void(const proto::channel::Frame&, Fd passed)>;

  // `longest` answer expected; a longer one loses the connection. Answers slower than `timeout` lose it too: their
  // memory would be the server's for ever.
  FrameSocket(Fd socket, size_t longest, Duration timeout, Delivery delivery = {});

  uint64_t new_tag();
  // Sends a frame made with new_tag() and waits for its answer. {-EPIPE} when the connection is lost.
  Answer call(uint64_t tag, const proto::channel::Head& head, Bytes body = {}, int passed = -1) {
    return call(tag, head, body, passed, Deadline::after(timeout_));
  }
  Answer call(uint64_t tag, const proto::channel::Head& head, Bytes body, int passed, Deadline deadline);
  // Sends a frame whose answers are deliveries. False when the connection is lost.
  bool post(const proto::channel::Head& head);

  Lock lock() { return Lock(mutex_); }
  // Waits until `done`, which is asked under the lock. False: the deadline passed, or the connection is lost.
  template <class Done>
  bool wait(Lock& held, Deadline deadline, Done done) {
    while (!done()) {
      if (lost_ || deadline.passed()) return hand_over(), false;
      turn(held, deadline);
    }
    hand_over();
    return true;
  }
  // Makes every wait ask its `done` again. From any thread, without the lock.
  void interrupt();
  bool lost(const Lock&) const { return lost_; }

 private:
  struct Pending {
    bool done = false;
    Answer answer;
  };

  // Called by whoever stops waiting: somebody has to read for those who still do.
  void hand_over() {
    if (!reading_) changed_.notify_one();
  }
  // Sleeps until something may have changed: as the reader if there is none, else as one who is told.
  void turn(Lock& held, Deadline deadline);
  void receive(Lock& held);
  void dispatch(const proto::channel::Frame& frame, Fd passed);
  void lose(Lock& held);
  bool send(const proto::channel::Head& head, Bytes body, int passed, Deadline deadline);

  const Fd socket_;
  const Fd interrupt_;  // eventfd: wakes the reader, who wakes the others
  const Duration timeout_;
  Delivery delivery_;

  std::mutex mutex_;
  std::condition_variable changed_;
  bool reading_ = false;  // one thread is in turn(), without the lock, and owns buffer_
  bool lost_ = false;
  uint64_t next_tag_ = 1;
  std::unordered_map<uint64_t, Pending*> pending_;  // each on the stack of its caller
  Buffer buffer_;
};

}  // namespace hydrant::fetch
