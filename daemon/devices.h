// Serves /dev/cachefiles to programs written for the kernel, which the preload library (shim/) connects: open instances
// whose every request says where its answer goes, so that any number of processes and threads share one.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <unordered_map>
#include <vector>

#include "base/event_loop.h"
#include "base/gate.h"
#include "base/unix_socket.h"
#include "cachefiles/engine.h"
#include "daemon/channel_types.h"
#include "daemon/handle_server.h"
#include "daemon/readiness.h"
#include "proto/device.h"

namespace hydrant::daemon {

// Everything runs on the loop's thread but users() and what the engine calls. Commands and control reads are performed
// on that thread, too, so a device's readiness is in step before an answer leaves.
class Devices {
 public:
  struct Wiring {
    cachefiles::Engine& engine;
    EventLoop& loop;
    HandleServer& handles;
    std::shared_ptr<Gate> gate;               // open while the three above exist; shared with wake callbacks
    std::shared_ptr<CloseCounters> counters;  // shared with the handle threads
    std::function<void()> ended;              // a user has gone
  };
  // What open(2) or the hold gives: 0 and a descriptor for the program, or -errno.
  using Done = UniqueFunction<void(int result, Fd socket)>;

  explicit Devices(Wiring wiring);
  // After the loop has ended.
  ~Devices();

  // `done` may run later: a release that is on its way is waited for, as the kernel's close would have.
  void open(uint32_t access, Done done);
  void hold(Done done);

  // Open instances and holds. Any thread.
  size_t users() const { return users_.load(std::memory_order_relaxed); }

 private:
  struct Device;
  using DevicePtr = std::shared_ptr<Device>;
  class Delivery;

  void open_now(uint32_t access, Done done, bool again);
  Fd admit(uint32_t access, std::shared_ptr<cachefiles::Channel> channel, int* result);
  void readable(const DevicePtr& device);
  // False: malformed.
  bool serve(const DevicePtr& device, const proto::channel::Frame& frame, Packet& packet);
  void read(Device& device, const proto::channel::Frame& frame, const proto::device::Read& read, Fd reply);
  void closing(const DevicePtr& device, Fd reply);
  void end(const DevicePtr& device, CloseReason reason);
  void gone();

  const Wiring wiring_;
  Buffer buffer_;
  uint64_t next_id_;
  std::unordered_map<int, DevicePtr> devices_;  // by socket
  std::unordered_map<int, Fd> holds_;
  // Sockets of processes that close their descriptor of a device, until they say that they have.
  std::unordered_map<int, Fd> closers_;
  std::atomic<size_t> users_{0};
};

}  // namespace hydrant::daemon
