// A packet socket on which many threads ask and each waits for its own answer.
#pragma once

#include <cerrno>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <list>
#include <mutex>
#include <span>
#include <vector>

#include "base/bytes.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/fd.h"
#include "base/unique_function.h"
#include "proto/channel.h"

namespace hydrant::fetch {

// Thread-safe. There is no reading thread: of those who wait one reads, hands the others theirs, and passes the role on
// when it has its own. Nor is there a writing one: who finds nobody sending sends for all who came meanwhile, in one
// message if the peer takes such. So an answer wakes the thread that wants it and no other.
class FrameSocket {
  struct Batch;

 public:
  using Lock = std::unique_lock<std::mutex>;
  // A frame and what becomes of it. Belongs to its caller, who waits.
  class Call {
   public:
    explicit Call(const proto::channel::Head& head, Bytes body = {}, int passed = -1)
        : head_(head), body_(body), passed_(passed) {}

    int64_t result = -EPIPE;  // of the answer; -EPIPE: the connection is lost
    int32_t completion = 0;   // of a PWRITE that completes
    uint64_t features = 0;    // of a HELLO

   private:
    friend class FrameSocket;
    proto::channel::Head head_;
    Bytes body_;
    int passed_;
    Batch* batch_ = nullptr;  // while it is to be answered
    uint64_t tag_ = 0;
  };
  // Gets answers that no call waits for, in their order, under the lock. Must not call back.
  using Delivery = UniqueFunction<void(const proto::channel::Frame&, Fd passed)>;
  // The tag of frames whose answers are deliveries.
  static constexpr uint64_t kDeliveryTag = UINT64_MAX;

  struct Options {
    size_t longest = 0;   // message expected; a longer one loses the connection
    Duration timeout{};   // answers slower than this lose it too: their memory would be the server's for ever
    bool joined = false;  // the peer takes several frames in a message
    Delivery delivery{};
    UniqueFunction<void()> on_lost{};  // once, under the lock. Must not call back
  };
  FrameSocket(Fd socket, Options options);

  // Sends the frames, whatever their tags, and waits for all their answers.
  void call(std::span<Call> calls, Deadline deadline);
  void call(std::span<Call> calls) { call(calls, Deadline::after(options_.timeout)); }
  int64_t call(const proto::channel::Head& head, Bytes body = {}, int passed = -1) {
    Call one(head, body, passed);
    call({&one, 1});
    return one.result;
  }
  // Sends a frame that nobody waits for. False when the connection is lost.
  bool post(const proto::channel::Head& head);
  // From now on the peer takes several frames in a message. Before the socket is shared.
  void join() { options_.joined = true; }
  // Ends the connection. From any thread.
  void shut();

  Lock lock() { return Lock(mutex_); }
  // Waits for deliveries until `done`, which is asked under the lock. False: the deadline passed, or the connection is
  // lost.
  template <class Done>
  bool wait(Lock& held, Deadline deadline, Done done) {
    while (!done()) {
      if (lost_ || deadline.passed()) return hand_over(), false;
      turn(held, deadline, nullptr);
    }
    hand_over();
    return true;
  }
  // More was delivered than its taker took: the next one may have it.
  void wake_taker(const Lock&) { wake_taker(); }
  // Makes every wait ask its `done` again. From any thread, without the lock.
  void interrupt();
  bool lost(const Lock&) const { return lost_; }

 private:
  struct Waiter {
    std::condition_variable changed;
    bool takes_deliveries = false;
    bool woken = false;  // and so no longer in waiters_
    std::list<Waiter*>::iterator at;
  };
  struct Unsent {
    proto::channel::Head head;
    Bytes body;
    int passed;
  };

  // Called by whoever stops waiting: somebody has to read for those who still do.
  void hand_over();
  void wake(Waiter& waiter);
  void wake_all();
  void wake_taker();
  // Sleeps until something may have changed: as the reader if there is none, else as one who is told. `batch` is what
  // the caller waits for, null for deliveries.
  void turn(Lock& held, Deadline deadline, Batch* batch);
  // As the reader: takes a message, and waits for one if `events` has POLLIN; POLLOUT ends the wait, too.
  void read(Lock& held, Deadline deadline, short events);
  void dispatch(const proto::channel::Frame& frame, Fd passed);
  void lose();
  // Sends what is in outbox_, others' too, until it is empty.
  void send_all(Lock& held, Deadline deadline);
  void send_message(Lock& held, std::span<const Unsent> frames, Deadline deadline);

  const Fd socket_;
  const Fd interrupt_;  // eventfd: wakes the reader, who wakes the others
  Options options_;

  std::mutex mutex_;
  std::list<Waiter*> waiters_;    // each on the stack of its thread
  bool reading_ = false;          // one thread is in read(), without the lock, and owns buffer_
  bool reader_takes_ = false;     // and waits for deliveries
  bool sending_ = false;          // one thread is in send_all(), perhaps without the lock
  std::condition_variable sent_;  // sending_ became false
  bool lost_ = false;
  std::vector<Call*> calls_;    // by the low half of their tag; null where free
  std::vector<uint32_t> free_;  // of calls_
  uint32_t generation_ = 0;     // the high half: a late answer meets nobody else's call
  std::deque<Unsent> outbox_;
  Buffer buffer_;
};

}  // namespace hydrant::fetch
