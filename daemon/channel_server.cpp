#include "daemon/channel_server.h"

#include <fcntl.h>
#include <pthread.h>
#include <sys/socket.h>

#include <bit>
#include <cerrno>
#include <future>

#include "base/check.h"
#include "base/log.h"

namespace hydrant::daemon {
namespace ch = proto::channel;
namespace dev = proto::device;

namespace {

// Frames of one client in one turn of the loop.
constexpr int kFramesPerTurn = 64;
constexpr int kSendBuffer = 1 << 20;

}  // namespace

Result<std::unique_ptr<ChannelServer>> ChannelServer::start(cachefiles::Engine& engine,
                                                            std::shared_ptr<cachefiles::Channel> standing, Fd listener,
                                                            ChannelServerOptions options) {
  if (options.handle_threads < 1 || options.handle_threads > 64 || options.max_connections < 1)
    return fail(Code::kInvalid, "channel server: handle threads must be 1 to 64, connections at least 1");
  auto counters = std::make_shared<CloseCounters>();
  HYDRANT_TRY(auto loop, EventLoop::create());
  HYDRANT_TRY(auto handles, HandleServer::start(options.handle_threads, counters));
  if (options.user_left) handles->on_drop(options.user_left);
  std::unique_ptr<ChannelServer> server(new ChannelServer(engine, std::move(standing), std::move(listener), options,
                                                          std::move(loop), std::move(handles), std::move(counters)));
  HYDRANT_TRY_VOID(
      server->loop_->add(server->listener_.get(), EPOLLIN, [at = server.get()](uint32_t) { at->accept_all(); }));
  server->thread_ = std::jthread([&running = *server->loop_] {
    pthread_setname_np(pthread_self(), "channel");
    running.run();
  });
  return server;
}

ChannelServer::ChannelServer(cachefiles::Engine& engine, std::shared_ptr<cachefiles::Channel> standing, Fd listener,
                             ChannelServerOptions options, std::unique_ptr<EventLoop> loop,
                             std::unique_ptr<HandleServer> handles, std::shared_ptr<CloseCounters> counters)
    : engine_(engine),
      standing_(std::move(standing)),
      listener_(std::move(listener)),
      options_(options),
      counters_(std::move(counters)),
      gate_(std::make_shared<Gate>()),
      loop_(std::move(loop)),
      handles_(std::move(handles)),
      devices_(
          std::make_unique<Devices>(Devices::Wiring{engine, *loop_, *handles_, gate_, counters_, options_.user_left})),
      buffer_(ch::kMaxFrame) {}

ChannelServer::~ChannelServer() {
  if (!thread_.joinable()) return;
  loop_->stop();
  thread_.join();
  for (auto& [raw, session] : sessions_)
    if (session->channel()) session->channel()->on_wake([] {});
  // Wake-ups that were on their way pump a session for a moment; nothing of that waits.
  HYDRANT_CHECK(gate_->close(Deadline::after(std::chrono::seconds(60))), "a call into the engine does not return");
  handles_.reset();
  devices_.reset();
  attached_.reset();
  queued_.clear();
  sessions_.clear();
}

void ChannelServer::accept_all() {
  for (;;) {
    auto accepted = accept_unix(listener_.get());
    if (!accepted || !*accepted) {
      // Out of descriptors: the backlog keeps the connection, so give the loop a rest instead of a spin.
      if (!accepted && loop_->modify(listener_.get(), 0))
        loop_->add_timer(Deadline::after(std::chrono::milliseconds(100)),
                         [this] { (void)loop_->modify(listener_.get(), EPOLLIN); });
      return;
    }
    auto peer = peer_credentials(accepted->get());
    if (!peer || sessions_.size() >= options_.max_connections) {
      counters_->add(peer ? CloseReason::kTooMany : CloseReason::kTransport);
      continue;
    }
    int socket = accepted->get();
    // Room for a burst of READs; the default holds some 250, what a process without CAP_NET_ADMIN may have twice that.
    // What does not fit waits in the session.
    int room = kSendBuffer;
    ::setsockopt(socket, SOL_SOCKET, SO_SNDBUF, &room, sizeof room);
    auto session = std::make_shared<ChannelSession>(next_id_++, *std::move(accepted), *peer,
                                                    ChannelSession::Wiring{*loop_, *handles_, *this, gate_});
    auto watched = loop_->add(socket, EPOLLIN, [this, raw = session.get()](EventLoop::Events events) {
      readable(sessions_.at(raw), events);
    });
    if (!watched) {
      counters_->add(CloseReason::kTransport);
      continue;
    }
    session->front.hello_timer = loop_->add_timer(Deadline::after(options_.hello_timeout), [this, raw = session.get()] {
      close(sessions_.at(raw), CloseReason::kSilent);
    });
    sessions_.emplace(session.get(), std::move(session));
  }
}

void ChannelServer::readable(const SessionPtr& held, EventLoop::Events events) {
  SessionPtr session = held;  // close() may drop the entry that `held` refers to
  if (events & EPOLLOUT) session->writable();
  for (int i = 0; i < kFramesPerTurn && !session->front.closing && !session->congested(); ++i) {
    Packet packet;
    int64_t size = receive_packet(session->socket.get(), buffer_, &packet);
    if (size == -EAGAIN) break;
    if (size <= 0) return close(session, CloseReason::kPeer);
    if (packet.truncated) return close(session, CloseReason::kMalformed);
    Bytes rest = Bytes(buffer_).first(packet.size);
    // A descriptor belongs to the first frame of its message.
    for (; !rest.empty() && !session->front.closing; packet = {}) {
      auto frame = session->has_lanes() ? ch::take_frame(rest) : ch::decode_frame(std::exchange(rest, {}));
      if (!frame) return close(session, CloseReason::kMalformed);
      handle_frame(session, *frame, packet);
    }
  }
  // A client that went away without taking its answers.
  if (!session->front.closing && session->congested() && (events & (EPOLLHUP | EPOLLERR)))
    close(session, CloseReason::kPeer);
}

void ChannelServer::handle_frame(const SessionPtr& session, const ch::Frame& frame, Packet& packet) {
  auto op = frame.header.op;
  uint64_t tag = frame.header.tag;
  bool wait = frame.header.flags & ch::kWait;
  if (packet.fd_count != (op == ch::Op::kCwd || op == ch::Op::kWindow || op == ch::Op::kLane ? 1u : 0u))
    return close(session, CloseReason::kDescriptors);
  if (op == ch::Op::kDevice || op == ch::Op::kHold) return device(session, frame);
  if (session->front.ready == (op == ch::Op::kHello) || session->front.queued)
    return close(session, CloseReason::kDisorder);
  switch (op) {
    case ch::Op::kHello: return hello(session, frame);
    case ch::Op::kWrite: {
      auto command = ch::decode_bytes(frame);
      if (!command) break;
      cachefiles::Caller caller{.sys_admin = true, .cwd = session->front.cwd ? session->front.cwd.get() : AT_FDCWD};
      return session->answer(ch::encode_answer(op, tag, session->channel()->write(*command, caller)));
    }
    case ch::Op::kRead: {
      auto read = ch::decode_read(frame);
      if (!read) break;
      return session->read(tag, *read, wait) ? void() : close(session, CloseReason::kFlood);
    }
    case ch::Op::kPoll: {
      auto poll = ch::decode_poll(frame);
      if (!poll) break;
      return session->poll(tag, *poll, wait) ? void() : close(session, CloseReason::kFlood);
    }
    case ch::Op::kCwd: {
      if (!ch::decode_empty(frame)) break;
      int result = check_directory(packet.fds[0].get());
      if (result == 0) session->front.cwd = std::move(packet.fds[0]);
      return session->answer(ch::encode_answer(op, tag, result));
    }
    case ch::Op::kWindow: {
      auto window = ch::decode_window(frame);
      if (!window) break;
      return session->answer(ch::encode_answer(op, tag, session->windows().add(window->id, std::move(packet.fds[0]))));
    }
    case ch::Op::kLane: {
      if (!ch::decode_empty(frame)) break;
      return session->answer(ch::encode_answer(op, tag, session->add_lane(std::move(packet.fds[0]))));
    }
    case ch::Op::kCancel: {
      auto cancel = ch::decode_cancel(frame);
      if (!cancel) break;
      return session->cancel(tag, cancel->tag);
    }
    default: return close(session, CloseReason::kDisorder);
  }
  close(session, CloseReason::kMalformed);
}

void ChannelServer::hello(const SessionPtr& session, const ch::Frame& frame) {
  auto hello = ch::decode_hello(frame);
  if (!hello) return close(session, CloseReason::kMalformed);
  uint64_t tag = frame.header.tag;
  // After a refusal the client may say HELLO again (a slot may be free later), until its time is up; a peer without
  // privilege may not.
  auto refuse = [&](int result) { session->answer(ch::encode_answer(ch::Op::kHello, tag, result)); };
  if (!may_use(*session) && !(hello->mode == ch::Mode::kAttach && may_attach(*session))) {
    refuse(-EPERM);
    return close(session, CloseReason::kDenied);
  }
  if (hello->version != ch::kVersion) return refuse(-EPROTONOSUPPORT);
  if (hello->mode == ch::Mode::kAttach) return attach(session, tag, hello->features);
  std::shared_ptr<cachefiles::Channel> channel;
  int result = engine_.open_channel(cachefiles::Caller{}, &channel);
  if (result) return refuse(result);
  welcome(session, tag, {.mode = ch::Mode::kOpen, .features = hello->features}, std::move(channel));
}

void ChannelServer::device(const SessionPtr& session, const ch::Frame& frame) {
  if (session->front.ready || session->front.queued) return close(session, CloseReason::kDisorder);
  ch::Header header = frame.header;
  auto open = dev::decode_open(frame);
  if (!open && !dev::decode_bare(frame)) return close(session, CloseReason::kMalformed);
  session->front.queued = true;
  auto done = [this, session, header](int result, Fd passed) {
    if (session->front.closing) return;  // and `passed` with it: a program that died in its open
    int raw = passed.get();
    (void)send_packet(session->socket.get(), ch::encode_answer(header.op, header.tag, result).bytes(), {},
                      std::span(&raw, passed ? 1 : 0));
    close(session, CloseReason::kPeer);
  };
  if (!may_use(*session)) {
    done(-EPERM, {});
  } else if (open && open->version != ch::kVersion) {
    done(-EPROTONOSUPPORT, {});
  } else if (open) {
    devices_->open(open->access, std::move(done));
  } else {
    devices_->hold(std::move(done));
  }
}

bool ChannelServer::close_if_unused() {
  std::promise<bool> closed;
  loop_->post([&] {
    const bool unused = users() == 0;
    if (unused) {
      loop_->remove(listener_.get());
      for (auto& [raw, session] : std::unordered_map(sessions_)) close(session, CloseReason::kPeer);
    }
    closed.set_value(unused);
  });
  return closed.get_future().get();
}

bool ChannelServer::may_use(const ChannelSession& session) const {
  return session.peer.uid == 0 || session.peer.uid == options_.allowed_uid;
}

bool ChannelServer::may_attach(const ChannelSession& session) const {
  return options_.may_attach && options_.may_attach(session.peer.uid);
}

void ChannelServer::attach(const SessionPtr& session, uint64_t tag, uint64_t features) {
  auto refuse = [&](int result) { session->answer(ch::encode_answer(ch::Op::kHello, tag, result)); };
  if (!standing_) return refuse(-EOPNOTSUPP);
  if (attached_) {
    // The client that restarts is often faster than the news of its predecessor's death.
    if (!attached_->front.closing && hung_up(attached_->socket.get())) close(attached_, CloseReason::kPeer);
    if (!attached_->front.closing) return refuse(-EBUSY);
    session->front.queued = true;
    queued_.push_back({session, tag, features});
    return;
  }
  attached_ = session;
  attached_flag_.store(true, std::memory_order_relaxed);
  session->front.attached = true;
  log::info("channel.attached", {{"pid", session->peer.pid}, {"uid", session->peer.uid}});
  welcome(session, tag, {.mode = ch::Mode::kAttach, .features = features}, standing_);
}

void ChannelServer::welcome(const SessionPtr& session, uint64_t tag, ch::Hello hello,
                            std::shared_ptr<cachefiles::Channel> channel) {
  hello.features &= ch::kLanes;
  loop_->cancel_timer(session->front.hello_timer);
  channels_.fetch_add(1, std::memory_order_relaxed);
  session->begin(std::move(channel), hello.features & ch::kLanes);
  session->answer(ch::encode_hello_answer(tag, hello));
}

void ChannelServer::close(const SessionPtr& session, CloseReason reason) {
  if (session->front.closing) return;
  session->front.closing = true;
  counters_->add(reason);
  // The first, second, fourth, eighth… of a kind: a client that misbehaves for ever does not fill the log.
  uint64_t count = counters_->get(reason);
  if (reason != CloseReason::kPeer && std::has_single_bit(count))
    log::warn("channel.refused", {{"reason", to_string(reason)}, {"count", count}, {"pid", session->peer.pid}});
  loop_->cancel_timer(session->front.hello_timer);
  loop_->remove(session->socket.get());
  // The client learns it now, whoever else still holds the session.
  ::shutdown(session->socket.get(), SHUT_RDWR);
  session->end();
}

void ChannelServer::session_ended(SessionPtr session) {
  loop_->post([this, session = std::move(session)] {
    if (!session->front.attached) {
      // An open instance: our reference was the channel. Its handles live on and pin the cache, as the kernel's do.
      handles_->run([channel = session->release_channel()] {});
      left(*session);
      return;
    }
    // A dead user daemon's handles end before the next one is let in: it would be handed messages of objects whose
    // handles only the dead one held.
    handles_->close_all(session->id, [this, session] {
      session->drop_handles();
      loop_->post([this, session] { retired(session); });
    });
  });
}

void ChannelServer::left(ChannelSession& session) {
  if (session.front.ready) channels_.fetch_sub(1, std::memory_order_relaxed);
  sessions_.erase(&session);
  if (options_.user_left) options_.user_left();
}

void ChannelServer::retired(const SessionPtr& session) {
  log::info("channel.detached", {{"pid", session->peer.pid}});
  left(*session);
  attached_.reset();
  attached_flag_.store(false, std::memory_order_relaxed);
  for (auto queued = std::exchange(queued_, {}); const Hello& hello : queued) {
    hello.session->front.queued = false;
    if (!hello.session->front.closing) attach(hello.session, hello.tag, hello.features);
  }
}

}  // namespace hydrant::daemon
