// A level-triggered epoll loop: descriptors, tasks from other threads, timers.
#pragma once

#include <sys/epoll.h>

#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <unordered_map>
#include <vector>

#include "base/clock.h"
#include "base/error.h"
#include "base/fd.h"
#include "base/unique_function.h"

namespace hydrant {

// Owned by the thread that calls run(). Everything but post() and stop() is called on that thread, or before run().
// Callbacks may add, modify and remove any descriptor, their own included. Exceptions from callbacks end the process.
class EventLoop {
 public:
  using Events = uint32_t;  // EPOLLIN, EPOLLOUT, …
  using TimerId = uint64_t;

  static Result<std::unique_ptr<EventLoop>> create();
  ~EventLoop();  // not while run() is running; tasks that never ran are destroyed

  // `fd` stays the caller's, and must be removed before it is closed.
  Result<> add(int fd, Events events, UniqueFunction<void(Events)> callback);
  Result<> modify(int fd, Events events);
  // The callback is not called again, even for events of the round that is being handled.
  void remove(int fd);

  // Runs once, at the deadline or soon after.
  TimerId add_timer(Deadline deadline, UniqueFunction<void()> callback);
  void cancel_timer(TimerId id);  // no-op once it ran

  // Any thread. Tasks run in the order they were posted; one posted by a task runs in the next round.
  void post(UniqueFunction<void()> task);
  // Any thread. run() returns after the tasks posted before this call.
  void stop();

  void run();

 private:
  struct Watch {
    int fd = -1;
    Events events = 0;
    UniqueFunction<void(Events)> callback;  // of a removed watch: never called
    bool removed = false;
  };

  EventLoop(Fd epoll, Fd wake) : epoll_(std::move(epoll)), wake_(std::move(wake)) {}
  void run_tasks();
  void run_timers();
  int wait_ms() const;

  Fd epoll_;
  Fd wake_;  // eventfd: tasks_ is not empty, or stopping_
  std::unordered_map<int, std::unique_ptr<Watch>> watches_;
  // Removed in this round: epoll may still hold events that point at them.
  std::vector<std::unique_ptr<Watch>> retired_;
  std::map<std::pair<Instant, TimerId>, UniqueFunction<void()>> timers_;
  std::unordered_map<TimerId, Instant> timer_times_;
  TimerId next_timer_ = 1;

  std::mutex mutex_;  // guards tasks_ and stopping_
  std::vector<UniqueFunction<void()>> tasks_;
  bool stopping_ = false;
};

}  // namespace hydrant
