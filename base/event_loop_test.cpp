#include "base/event_loop.h"

#include <gtest/gtest.h>
#include <sys/eventfd.h>

#include <atomic>
#include <thread>

namespace hydrant {
namespace {

using namespace std::chrono_literals;

Fd ready_fd() { return Fd(::eventfd(1, EFD_CLOEXEC | EFD_NONBLOCK)); }

TEST(EventLoop, TasksOfOtherThreadsRunInTheirOrderBeforeTheLoopStops) {
  auto loop = EventLoop::create().value();
  std::vector<int> ran;
  std::thread other([&] {
    for (int i = 0; i < 1000; ++i) loop->post([&ran, i] { ran.push_back(i); });
    loop->stop();
  });
  loop->run();
  other.join();
  ASSERT_EQ(ran.size(), 1000u);
  EXPECT_TRUE(std::is_sorted(ran.begin(), ran.end()));
}

TEST(EventLoop, ARemovedDescriptorIsNotHeardOfAgainEvenInTheSameRound) {
  auto loop = EventLoop::create().value();
  Fd first = ready_fd(), second = ready_fd();
  int calls = 0;
  // Both are ready in the first round; whichever comes first removes both and closes the other.
  auto callback = [&](EventLoop::Events) {
    ++calls;
    loop->remove(first.get());
    loop->remove(second.get());
    loop->post([&] { loop->stop(); });
  };
  ASSERT_TRUE(loop->add(first.get(), EPOLLIN, callback));
  ASSERT_TRUE(loop->add(second.get(), EPOLLIN, callback));
  loop->run();
  EXPECT_EQ(calls, 1);
}

TEST(EventLoop, ACallbackMayReplaceItself) {
  auto loop = EventLoop::create().value();
  Fd fd = ready_fd();
  std::string order;
  ASSERT_TRUE(loop->add(fd.get(), EPOLLIN, [&](EventLoop::Events) {
    order += 'a';
    loop->remove(fd.get());
    ASSERT_TRUE(loop->add(fd.get(), EPOLLIN, [&](EventLoop::Events) {
      order += 'b';
      loop->remove(fd.get());
      loop->stop();
    }));
  }));
  loop->run();
  EXPECT_EQ(order, "ab");
}

TEST(EventLoop, InterestCanBeTakenAwayAndGivenBack) {
  auto loop = EventLoop::create().value();
  Fd fd = ready_fd();
  int calls = 0;
  ASSERT_TRUE(loop->add(fd.get(), 0, [&](EventLoop::Events) {
    ++calls;
    loop->stop();
    ASSERT_TRUE(loop->modify(fd.get(), 0));
  }));
  EXPECT_FALSE(loop->modify(12345, EPOLLIN));
  loop->post([&] { ASSERT_TRUE(loop->modify(fd.get(), EPOLLIN)); });
  loop->run();
  EXPECT_EQ(calls, 1);
}

TEST(EventLoop, TimersRunInTheOrderOfTheirDeadlinesAndCancelledOnesDoNot) {
  auto loop = EventLoop::create().value();
  std::string order;
  Deadline now = Deadline::after(0ms);
  loop->add_timer(Deadline(now.at() + 2ms), [&] {
    order += 'c';
    loop->stop();
  });
  loop->add_timer(now, [&] { order += 'a'; });
  loop->add_timer(Deadline(now.at() + 1ms), [&] { order += 'b'; });
  auto never = loop->add_timer(now, [&] { order += 'x'; });
  loop->cancel_timer(never);
  loop->cancel_timer(never);
  loop->run();
  EXPECT_EQ(order, "abc");
}

}  // namespace
}  // namespace hydrant
