#include "fetch/request_loop.h"

#include <malloc.h>
#include <pthread.h>

#include <algorithm>
#include <string>

#include "base/log.h"
#include "base/nap.h"

namespace hydrant::fetch {

RequestLoop::RequestLoop(Connect connect, Objects& objects, RequestLoopOptions options)
    : connect_(std::move(connect)), objects_(objects), options_(options), thread_([this](std::stop_token stop) {
        pthread_setname_np(pthread_self(), "requests");
        run(stop);
      }) {}

RequestLoop::~RequestLoop() {
  thread_.request_stop();
  if (auto control = *control_.lock()) control->stop();
  thread_.join();
}

void RequestLoop::run(std::stop_token stop) {
  Duration backoff = options_.first_backoff;
  Code last = Code::kOk;
  while (!stop.stop_requested()) {
    auto connected = connect_(Deadline::after(options_.connect_deadline));
    if (!connected) {
      // Once for each reason: hydrantd may be away for days.
      if (connected.error().code != last) log::info("channel.waiting", {{"reason", connected.error().what}});
      last = connected.error().code;
      nap(stop, backoff);
      backoff = std::min(backoff * 2, options_.longest_backoff);
      continue;
    }
    std::shared_ptr<Control> control = *std::move(connected);
    bool stood = false;
    *control_.lock() = control;
    if (stop.stop_requested()) control->stop();  // the destructor may have looked before we were there
    // What another daemon had read and not answered comes again.
    if (int64_t restored = control->write("restore"); restored < 0) {
      log::warn("channel.restore", {{"errno", -restored}});
    } else {
      log::info("channel.attached");
      const Instant began = Clock::system().now();
      last = Code::kOk;
      attached_.store(true, std::memory_order_relaxed);
      if (options_.attached) options_.attached();
      serve(*control);
      attached_.store(false, std::memory_order_relaxed);
      // A hydrantd that accepts us only to drop us again is not asked any more often than one that is away. After one
      // that served we go to the next one at once, for readers wait: where its sockets are held, that is in their
      // backlog.
      stood = Clock::system().now() - began >= options_.longest_backoff;
      if (stood) backoff = options_.first_backoff;
    }
    objects_.close_all();
    control_.lock()->reset();
    control.reset();
    if (!stop.stop_requested()) {
      log::info("channel.lost");
      if (stood) continue;
      nap(stop, backoff);
      backoff = std::min(backoff * 2, options_.longest_backoff);
    }
  }
}

// Until the connection is lost or stopped.
void RequestLoop::serve(Control& control) {
  Deadline tick = Deadline::after(options_.tick);
  for (;;) {
    if (tick.passed()) {
      objects_.expire();
      tick = Deadline::after(options_.tick);
    }
    auto request = control.next(tick);
    if (!request) {
      Code code = request.error().code;
      if (code == Code::kTooSlow) {
        ::malloc_trim(0);  // a whole tick without a request: what fills have used goes back
        continue;
      }
      if (code != Code::kCorrupt) return;
      log::warn("channel.bad_request", {{"reason", request.error().what}});
      continue;
    }
    if (auto* open = std::get_if<OpenRequest>(&*request)) {
      int64_t answer = objects_.open(*open);
      std::string command = "copen " + std::to_string(open->msg_id) + "," + std::to_string(answer);
      int64_t written = control.write(command);
      // A refused object has no use for its handle; one whose OPEN is gone is opened anew when it is wanted.
      if (answer < 0 || written < 0) {
        if (written < 0) log::warn("channel.copen", {{"command", command}, {"errno", -written}});
        objects_.close({open->msg_id, open->object_id});
      }
    } else if (auto* read = std::get_if<ReadRequest>(&*request)) {
      objects_.read(*read);
    } else {
      objects_.close(std::get<CloseRequest>(*request));
    }
  }
}

}  // namespace hydrant::fetch
