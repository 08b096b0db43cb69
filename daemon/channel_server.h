// Serves an engine's control channel to other processes: the listening end of proto/channel.h.
//
// A connection is one open instance (mode open) or the user daemon of the standing channel (mode attach). A client can
// harm only itself: whatever breaks the protocol ends its connection, and is counted by reason.
#pragma once

#include <sys/types.h>

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <thread>
#include <unordered_map>
#include <vector>

#include "base/event_loop.h"
#include "base/fd.h"
#include "base/gate.h"
#include "cachefiles/engine.h"
#include "daemon/channel_session.h"
#include "daemon/channel_types.h"
#include "daemon/devices.h"
#include "daemon/handle_server.h"

namespace hydrant::daemon {

struct ChannelServerOptions {
  uid_t allowed_uid = 0;                       // may connect, besides uid 0
  std::function<bool(uid_t)> may_attach = {};  // and may these, but to the standing channel alone
  unsigned handle_threads = 4;  // 1..64; disk writes happen on these. A handle keeps to one of them, so its order holds
  unsigned max_connections = 64;                      // further ones are closed at once
  Duration hello_timeout = std::chrono::seconds(10);  // for a connection to say what it is
  std::function<void()> user_left = {};               // users() may have become less. Any thread
};

// Owns a loop thread for control sockets and the threads that serve handles. The engine outlives it.
class ChannelServer final : private SessionOwner {
 public:
  // `listener` comes from listen_unix(…, kSeqPacket). `standing` is the channel that mode attach joins, already bound,
  // its on_wake left to the server; null refuses that mode.
  static Result<std::unique_ptr<ChannelServer>> start(cachefiles::Engine& engine,
                                                      std::shared_ptr<cachefiles::Channel> standing, Fd listener,
                                                      ChannelServerOptions options = {});
  // Ends every connection and closes every handle; returns when no call into the engine is under way.
  ~ChannelServer();

  // A user daemon is attached. Any thread.
  bool attached() const { return attached_flag_.load(std::memory_order_relaxed); }
  // Connections ended, by reason, since start. Any thread.
  uint64_t closed(CloseReason reason) const { return counters_->get(reason); }
  uint64_t open_handles() const { return handles_->count(); }
  // Whatever keeps the engine in use: channels, devices, handles, holds. Any thread.
  uint64_t users() const { return channels_.load(std::memory_order_relaxed) + devices_->users() + open_handles(); }
  // Unless there are users: from now on nobody becomes one, and whoever was about to is hung up on. Not from the loop.
  bool close_if_unused();

 private:
  using SessionPtr = std::shared_ptr<ChannelSession>;
  struct Hello {
    SessionPtr session;
    uint64_t tag;
    uint64_t features;
  };

  ChannelServer(cachefiles::Engine& engine, std::shared_ptr<cachefiles::Channel> standing, Fd listener,
                ChannelServerOptions options, std::unique_ptr<EventLoop> loop, std::unique_ptr<HandleServer> handles,
                std::shared_ptr<CloseCounters> counters);

  // All of these run on the loop thread.
  void accept_all();
  void readable(const SessionPtr& session, EventLoop::Events events);
  void handle_frame(const SessionPtr& session, const proto::channel::Frame& frame, Packet& packet);
  void hello(const SessionPtr& session, const proto::channel::Frame& frame);
  // A program written for the kernel asks for a descriptor; the connection is done with then.
  void device(const SessionPtr& session, const proto::channel::Frame& frame);
  void attach(const SessionPtr& session, uint64_t tag, uint64_t features);
  // `hello` is what the client asked for.
  void welcome(const SessionPtr& session, uint64_t tag, proto::channel::Hello hello,
               std::shared_ptr<cachefiles::Channel> channel);
  bool may_use(const ChannelSession& session) const;
  bool may_attach(const ChannelSession& session) const;
  void close(const SessionPtr& session, CloseReason reason);
  // The last of a session.
  void left(ChannelSession& session);
  void retired(const SessionPtr& session);

  // SessionOwner, from any thread.
  void session_ended(SessionPtr session) override;

  cachefiles::Engine& engine_;
  const std::shared_ptr<cachefiles::Channel> standing_;  // shared with whoever bound it
  const Fd listener_;
  const ChannelServerOptions options_;
  const std::shared_ptr<CloseCounters> counters_;  // shared with the handle threads
  const std::shared_ptr<Gate> gate_;               // shared with wake callbacks that the engine still holds
  std::unique_ptr<EventLoop> loop_;
  std::unique_ptr<HandleServer> handles_;
  std::unique_ptr<Devices> devices_;
  std::atomic<uint64_t> channels_{0};  // connections whose HELLO was accepted

  // Loop thread only.
  Buffer buffer_;
  uint64_t next_id_ = 1;
  std::unordered_map<ChannelSession*, SessionPtr> sessions_;
  SessionPtr attached_;        // until its last handle is closed: two daemons never hold handles of one channel
  std::vector<Hello> queued_;  // wait for an attached client that is on its way out

  std::atomic<bool> attached_flag_{false};
  std::jthread thread_;
};

}  // namespace hydrant::daemon
