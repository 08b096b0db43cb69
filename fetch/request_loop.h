// Reads the control channel and keeps it: whenever hydrantd is there, we are attached to it.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <thread>

#include "base/guarded.h"
#include "fetch/objects.h"
#include "fetch/transport/control.h"

namespace hydrant::fetch {

struct RequestLoopOptions {
  Duration first_backoff = std::chrono::milliseconds(50);
  Duration longest_backoff = std::chrono::seconds(2);
  Duration connect_deadline = std::chrono::seconds(5);
  Duration tick = std::chrono::seconds(1);  // how often readers past their deadline are looked for
  std::function<void()> attached = {};      // each time; must not block
};

// One thread of its own. It only admits requests: what blocks is done by the fill workers.
class RequestLoop {
 public:
  using Connect = std::function<Result<std::unique_ptr<Control>>(Deadline)>;

  // `objects` outlives the loop.
  RequestLoop(Connect connect, Objects& objects, RequestLoopOptions options = {});
  // Leaves what is pending to the next daemon.
  ~RequestLoop();

  bool attached() const { return attached_.load(std::memory_order_relaxed); }

 private:
  void run(std::stop_token stop);
  void serve(Control& control);

  const Connect connect_;
  Objects& objects_;
  const RequestLoopOptions options_;
  std::atomic<bool> attached_{false};          // for status only
  Guarded<std::shared_ptr<Control>> control_;  // shared with run(), so that the destructor can stop it
  std::jthread thread_;
};

}  // namespace hydrant::fetch
