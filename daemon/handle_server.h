// Serves object handles, on a few loop threads that also do the disk writes: one socket each, or many on a lane.
#pragma once

#include <atomic>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>
#include <unordered_map>
#include <vector>

#include "base/event_loop.h"
#include "base/fd.h"
#include "base/unix_socket.h"
#include "cachefiles/engine.h"
#include "daemon/channel_types.h"

namespace hydrant::daemon {

// The handles of a connection that uses lanes, by their numbers. Thread-safe.
class NumberedHandles {
 public:
  using Count = std::shared_ptr<std::atomic<uint64_t>>;
  explicit NumberedHandles(Count count) : count_(std::move(count)) {}
  ~NumberedHandles() { clear(); }
  NumberedHandles(const NumberedHandles&) = delete;

  // A number that no handle has. Given out again only when all others were.
  uint32_t reserve();
  void add(uint32_t number, std::shared_ptr<cachefiles::Handle> handle);
  std::shared_ptr<cachefiles::Handle> find(uint32_t number) const;
  // Drops them outside the lock. False: there was none.
  bool drop(uint32_t number);
  void clear();

 private:
  const Count count_;  // shared with the server, which may end first
  mutable std::mutex mutex_;
  uint32_t next_ = 1;
  std::unordered_map<uint32_t, std::shared_ptr<cachefiles::Handle>> handles_;
};

// Thread-safe but for the destructor. A handle stays on one thread, so its frames are performed in their order; a slow
// disk delays the handles of that thread and nothing else.
class HandleServer {
 public:
  static Result<std::unique_ptr<HandleServer>> start(unsigned threads, std::shared_ptr<CloseCounters> counters);
  // Drops every handle, then joins.
  ~HandleServer();

  // Serves `handle` on `socket` until its peer's last reference is closed; then drops it. `owner` is the id of the
  // connection that got it.
  void add(Fd socket, std::shared_ptr<cachefiles::Handle> handle, std::shared_ptr<const Windows> windows,
           uint64_t owner);
  // A lane: frames on `socket` are for any of `handles`. Served until its peer closes it.
  void add_lane(Fd socket, std::shared_ptr<NumberedHandles> handles, std::shared_ptr<const Windows> windows,
                uint64_t owner);
  std::shared_ptr<NumberedHandles> numbered() const { return std::make_shared<NumberedHandles>(count_); }
  // Drops every handle and lane that was added for `owner` before this call, then runs `done` on one of the threads.
  void close_all(uint64_t owner, UniqueFunction<void()> done);
  // Drops every handle whose peer has left already, then runs `done` on one of the threads.
  void sweep(UniqueFunction<void()> done);
  // Called on a handle's thread whenever one was dropped. Set before the first add.
  void on_drop(std::function<void()> dropped) { dropped_ = std::move(dropped); }
  // For a release that may touch the disk.
  void run(UniqueFunction<void()> task) { lanes_[0]->loop->post(std::move(task)); }

  uint64_t count() const { return count_->load(std::memory_order_relaxed); }

 private:
  struct Connection {
    Fd socket;
    std::shared_ptr<cachefiles::Handle> handle;  // the engine's other references are its own business; null on a lane
    std::shared_ptr<NumberedHandles> handles;    // of a lane: shared with the connection and its other lanes
    std::shared_ptr<const Windows> windows;      // shared with the connection and its other handles
    uint64_t owner = 0;
    uint64_t serial = 0;
    // Answers that did not fit the socket. While one stands no frame is read: a client that does not take its answers
    // gets no further writes.
    std::deque<Buffer> unsent;
  };
  // Somebody closes his descriptor of a handle and waits on the other end of `reply` to be told that the handle is
  // dropped, if it was the last one. He says on `reply` when he has closed it.
  struct Closer {
    Fd reply;
    int socket;       // of the connection
    uint64_t serial;  // of the connection: numbers of sockets are used again
  };
  struct Lane {
    std::unique_ptr<EventLoop> loop;
    Buffer buffer;  // the message being performed
    std::vector<cachefiles::Handle::Fill> fills;
    std::unordered_map<int, std::unique_ptr<Connection>> connections;
    std::unordered_map<int, Closer> closers;  // by `reply`
    std::jthread thread;
  };

  explicit HandleServer(std::shared_ptr<CloseCounters> counters) : counters_(std::move(counters)) {}

  // On the lane's thread.
  void ready(Lane& lane, Connection& connection, EventLoop::Events events);
  // The answer to a frame, nothing for one that wants none, or the reason to end the connection.
  tl::expected<std::optional<proto::channel::Head>, CloseReason> perform(Connection& connection, Bytes message);
  static tl::expected<std::optional<proto::channel::Head>, CloseReason> perform(cachefiles::Handle& handle,
                                                                                const Windows& windows,
                                                                                const proto::channel::Frame& frame);
  // A frame of a program written for the kernel: passed[0] is where the answer goes.
  std::optional<CloseReason> serve_device(Lane& lane, Connection& connection, Bytes message, Packet& packet);
  // Performs every frame of a message and sends what they are answered.
  std::optional<CloseReason> serve_lane(Lane& lane, Connection& connection, Bytes message);
  void watch(Lane& lane, std::unique_ptr<Connection> connection);
  std::optional<CloseReason> answer(Lane& lane, Connection& connection, Bytes message);
  void closing(Lane& lane, Connection& connection, Fd reply);
  void on_every_lane(std::function<void(Lane&)> work, UniqueFunction<void()> done);
  void close(Lane& lane, Connection& connection, CloseReason reason);

  const std::shared_ptr<CloseCounters> counters_;
  std::vector<std::unique_ptr<Lane>> lanes_;
  std::atomic<unsigned> next_lane_{0};
  const NumberedHandles::Count count_ = std::make_shared<std::atomic<uint64_t>>(0);
  std::atomic<uint64_t> serials_{0};
  std::function<void()> dropped_;
};

}  // namespace hydrant::daemon
