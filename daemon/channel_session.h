// One connection to the channel server: what is asked on it, what waits, what could not be sent yet.
#pragma once

#include <atomic>
#include <deque>
#include <memory>
#include <mutex>
#include <optional>
#include <utility>
#include <vector>

#include "base/event_loop.h"
#include "base/gate.h"
#include "base/unix_socket.h"
#include "cachefiles/engine.h"
#include "daemon/channel_types.h"
#include "daemon/handle_server.h"

namespace hydrant::daemon {

class ChannelSession;

class SessionOwner {
 public:
  virtual ~SessionOwner() = default;
  // The session touches its channel no more. From any thread.
  virtual void session_ended(std::shared_ptr<ChannelSession> session) = 0;
};

// An actor: requests are put in from the loop thread, wake-ups come from any thread of the engine, and whoever finds it
// idle runs it (`pump`). So a READ leaves in the thread that caused it, without a switch to the loop, and nothing of
// the actor needs a lock. A pump that has run for long hands over to the loop.
class ChannelSession final : public std::enable_shared_from_this<ChannelSession>, private cachefiles::Receiver {
 public:
  struct Wiring {
    EventLoop& loop;
    HandleServer& handles;
    SessionOwner& owner;
    std::shared_ptr<Gate> gate;  // open while the three above exist; shared with wake callbacks
  };

  ChannelSession(uint64_t id, Fd socket, PeerCredentials peer, Wiring wiring)
      : id(id), socket(std::move(socket)), peer(peer), wiring_(std::move(wiring)) {}

  // The whole life of the socket is the session's: a late pump never writes to a number that was given away.
  const uint64_t id;
  const Fd socket;
  const PeerCredentials peer;

  // Loop thread only.
  struct Front {
    bool ready = false;    // HELLO was accepted
    bool closing = false;  // no further frame is read
    bool queued = false;   // HELLO waits for another client to go
    bool attached = false;
    Fd cwd;
    EventLoop::TimerId hello_timer = 0;
  } front;
  // Before the first request. `channel` is shared with its opener in mode attach.
  // `lanes`: the client has the feature kLanes.
  void begin(std::shared_ptr<cachefiles::Channel> channel, bool lanes);
  const std::shared_ptr<cachefiles::Channel>& channel() const { return channel_; }
  // Once ended: the last thing that the session had of its channel.
  std::shared_ptr<cachefiles::Channel> release_channel() {
    numbered_.reset();  // its lanes hold them, if there are any
    return std::move(channel_);
  }
  Windows& windows() { return *windows_; }
  bool has_lanes() const { return numbered_ != nullptr; }  // loop thread
  // A socket that the client wants to use for its handles. 0 or -errno. Loop thread.
  int add_lane(Fd socket);
  // Closes the handles that are numbers. On a thread that may wait for the engine.
  void drop_handles() {
    if (numbered_) numbered_->clear();
  }

  // From the loop thread; each ends in pump().
  void answer(const proto::channel::Head& head);
  // False: more is waiting than a connection may have.
  bool read(uint64_t tag, const proto::channel::Read& read, bool wait);
  bool poll(uint64_t tag, const proto::channel::Poll& poll, bool wait);
  void cancel(uint64_t tag, uint64_t target);
  void writable();
  // Ends the actor; session_ended follows, from whichever thread runs it last.
  void end();
  // True while the client does not take its answers: its frames are left in its socket.
  bool congested() const { return congested_.load(std::memory_order_relaxed); }

  // From any thread.
  void pump();

 private:
  struct Credit {
    uint64_t tag;
    uint32_t buffer_size;
    uint32_t left;
  };
  struct Waiter {
    uint64_t tag;
    unsigned seen;
  };
  struct Cancellation {
    uint64_t tag;
    uint64_t target;
  };
  struct Outgoing {
    Buffer message;
    Fd passed;
  };
  struct Inbox {
    std::vector<proto::channel::Head> answers;
    std::vector<Credit> credits;
    std::vector<Credit> probes;  // READs that do not wait
    std::vector<Waiter> polls;
    std::vector<Cancellation> cancellations;
    bool ending = false;
  };

  // As pump, but the loop runs it: for a message that gains by company.
  void pump_later();
  // The actor. `step` is false when its budget ran out before its work.
  void act(unsigned most);
  bool step(unsigned& budget);
  void take_inbox();
  void cancel_now(const Cancellation& cancellation);
  bool deliver_credits(unsigned& budget);
  bool read_once(const Credit& credit, bool wait);
  void answer_polls();
  void flush();
  // With lanes the frame waits for those that go with it into one message, until the end of the step.
  void send(const proto::channel::Head& head, Bytes body = {}, Fd passed = {});
  void send_joined();
  void transmit(Bytes head, Bytes body, Fd passed);
  void lost_if_failed(int64_t sent);
  void finish();

  // cachefiles::Receiver, called by channel_->read in the actor.
  int reserve_fd() override;
  bool deliver(Bytes message, std::shared_ptr<cachefiles::Handle> handle, int fd) override;

  Wiring wiring_;
  std::shared_ptr<cachefiles::Channel> channel_;
  std::shared_ptr<NumberedHandles> numbered_;  // shared with lanes, which may live longer; null without the feature
  unsigned lanes_ = 0;                         // loop thread
  const std::shared_ptr<Windows> windows_ = std::make_shared<Windows>();  // shared with handles, which may live longer

  std::mutex mutex_;  // guards inbox_
  Inbox inbox_;
  // How often pump was called since the actor was last idle; whoever raises it from 0 runs the actor.
  std::atomic<uint32_t> calls_{0};
  // Requests that wait, as counted at admission (raised by the loop thread, lowered by the actor).
  std::atomic<uint32_t> waiting_{0};
  std::atomic<bool> congested_{false};
  std::atomic<size_t> backlog_{0};  // of the channel when the actor last looked; a hint to whoever wakes it

  // The actor's own.
  Inbox taken_;
  std::deque<Credit> credits_;
  std::vector<Waiter> polls_;
  Buffer joined_;  // frames of one message to be
  std::deque<Outgoing>
      unsent_;              // at most one message with requests of the engine; the rest answers frames already read
  std::pair<Fd, Fd> pair_;  // ours and the client's end of a handle that is being delivered
  uint64_t tag_ = 0;        // of the READ that is being answered
  bool delivered_ = false;
  bool ended_ = false;
};

}  // namespace hydrant::daemon
