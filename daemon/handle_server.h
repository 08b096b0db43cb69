// Serves object handles: one socket each, on a few loop threads that also do the disk writes.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
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
  // Drops every handle that was added for `owner` before this call, then runs `done` on one of the threads.
  void close_all(uint64_t owner, UniqueFunction<void()> done);
  // Drops every handle whose peer has left already, then runs `done` on one of the threads.
  void sweep(UniqueFunction<void()> done);
  // Called on a handle's thread whenever one was dropped. Set before the first add.
  void on_drop(std::function<void()> dropped) { dropped_ = std::move(dropped); }
  // For a release that may touch the disk.
  void run(UniqueFunction<void()> task) { lanes_[0]->loop->post(std::move(task)); }

  uint64_t count() const { return count_.load(std::memory_order_relaxed); }

 private:
  struct Connection {
    Fd socket;
    std::shared_ptr<cachefiles::Handle> handle;  // the engine's other references are its own business
    std::shared_ptr<const Windows> windows;      // shared with the connection and its other handles
    uint64_t owner = 0;
    uint64_t serial = 0;
    // An answer that did not fit the socket. While it stands no frame is read: a client that does not take its answers
    // gets no further writes.
    std::optional<proto::channel::Head> unsent;
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
    Buffer buffer;  // the frame being performed
    std::unordered_map<int, std::unique_ptr<Connection>> connections;
    std::unordered_map<int, Closer> closers;  // by `reply`
    std::jthread thread;
  };

  explicit HandleServer(std::shared_ptr<CloseCounters> counters) : counters_(std::move(counters)) {}

  // On the lane's thread.
  void ready(Lane& lane, Connection& connection, EventLoop::Events events);
  // The answer to a frame, nothing for one that wants none, or the reason to end the connection.
  tl::expected<std::optional<proto::channel::Head>, CloseReason> perform(Connection& connection, Bytes message);
  // A frame of a program written for the kernel: passed[0] is where the answer goes.
  std::optional<CloseReason> serve_device(Lane& lane, Connection& connection, Bytes message, Packet& packet);
  void closing(Lane& lane, Connection& connection, Fd reply);
  void on_every_lane(std::function<void(Lane&)> work, UniqueFunction<void()> done);
  void close(Lane& lane, Connection& connection, CloseReason reason);

  const std::shared_ptr<CloseCounters> counters_;
  std::vector<std::unique_ptr<Lane>> lanes_;
  std::atomic<unsigned> next_lane_{0};
  std::atomic<uint64_t> count_{0};
  std::atomic<uint64_t> serials_{0};
  std::function<void()> dropped_;
};

}  // namespace hydrant::daemon
