#include "base/event_loop.h"

#include <sys/eventfd.h>

#include <array>
#include <cerrno>

namespace hydrant {

Result<std::unique_ptr<EventLoop>> EventLoop::create() {
  Fd epoll(::epoll_create1(EPOLL_CLOEXEC));
  Fd wake(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!epoll || !wake) return fail_sys(errno, "event loop");
  epoll_event event{};
  event.events = EPOLLIN;
  event.data.ptr = nullptr;  // stands for wake_
  if (::epoll_ctl(epoll.get(), EPOLL_CTL_ADD, wake.get(), &event)) return fail_sys(errno, "event loop");
  return std::unique_ptr<EventLoop>(new EventLoop(std::move(epoll), std::move(wake)));
}

EventLoop::~EventLoop() = default;

Result<> EventLoop::add(int fd, Events events, UniqueFunction<void(Events)> callback) {
  auto watch = std::make_unique<Watch>();
  watch->fd = fd;
  watch->events = events;
  watch->callback = std::move(callback);
  epoll_event event{};
  event.events = events;
  event.data.ptr = watch.get();
  if (::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd, &event)) return fail_sys(errno, "watch a descriptor");
  watches_[fd] = std::move(watch);
  return {};
}

Result<> EventLoop::modify(int fd, Events events) {
  auto found = watches_.find(fd);
  if (found == watches_.end()) return fail(Code::kNotFound, "descriptor is not watched");
  if (found->second->events == events) return {};
  epoll_event event{};
  event.events = events;
  event.data.ptr = found->second.get();
  if (::epoll_ctl(epoll_.get(), EPOLL_CTL_MOD, fd, &event)) return fail_sys(errno, "watch a descriptor");
  found->second->events = events;
  return {};
}

void EventLoop::remove(int fd) {
  auto found = watches_.find(fd);
  if (found == watches_.end()) return;
  ::epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, fd, nullptr);
  found->second->removed = true;
  retired_.push_back(std::move(found->second));
  watches_.erase(found);
}

EventLoop::TimerId EventLoop::add_timer(Deadline deadline, UniqueFunction<void()> callback) {
  TimerId id = next_timer_++;
  timers_[{deadline.at(), id}] = std::move(callback);
  timer_times_[id] = deadline.at();
  return id;
}

void EventLoop::cancel_timer(TimerId id) {
  auto found = timer_times_.find(id);
  if (found == timer_times_.end()) return;
  timers_.erase({found->second, id});
  timer_times_.erase(found);
}

void EventLoop::post(UniqueFunction<void()> task) {
  bool first;
  {
    std::lock_guard lock(mutex_);
    first = tasks_.empty();
    tasks_.push_back(std::move(task));
  }
  if (first) ::eventfd_write(wake_.get(), 1);
}

void EventLoop::stop() {
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  ::eventfd_write(wake_.get(), 1);
}

void EventLoop::run_tasks() {
  std::vector<UniqueFunction<void()>> tasks;
  {
    std::lock_guard lock(mutex_);
    tasks.swap(tasks_);
  }
  for (auto& task : tasks) task();
}

void EventLoop::run_timers() {
  while (!timers_.empty() && Deadline(timers_.begin()->first.first).passed()) {
    auto timer = timers_.extract(timers_.begin());
    timer_times_.erase(timer.key().second);
    timer.mapped()();
  }
}

int EventLoop::wait_ms() const { return timers_.empty() ? -1 : Deadline(timers_.begin()->first.first).left_ms(); }

void EventLoop::run() {
  std::array<epoll_event, 64> events;
  for (;;) {
    int count = ::epoll_wait(epoll_.get(), events.data(), events.size(), wait_ms());
    bool woken = false;
    for (int i = 0; i < count; ++i) {
      auto* watch = static_cast<Watch*>(events[i].data.ptr);
      if (!watch) {
        eventfd_t value;
        ::eventfd_read(wake_.get(), &value);
        woken = true;
      } else if (!watch->removed) {
        watch->callback(events[i].events);
      }
    }
    retired_.clear();
    if (!timers_.empty()) run_timers();
    if (woken) {
      // Read before the tasks are taken, so that what was posted before stop() has run when we leave.
      bool stopping = [&] {
        std::lock_guard lock(mutex_);
        return stopping_;
      }();
      run_tasks();
      if (stopping) return;
    }
    retired_.clear();
  }
}

}  // namespace hydrant
