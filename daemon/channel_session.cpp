#include "daemon/channel_session.h"

#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>

#include "proto/cachefiles_message.h"

namespace hydrant::daemon {
namespace ch = proto::channel;

namespace {

// Messages that one run of the actor delivers before it hands over to the loop: the thread it runs in may be a
// reader's.
constexpr unsigned kBudget = 32;
constexpr unsigned kLoopBudget = 512;
// With more requests than this under way the user daemon has enough to do: what comes then is sent in company.
constexpr size_t kFew = 8;
// Where OPEN carries the descriptor's number (spec 6.1). A number means nothing in another process: the client's
// library writes its own there. With lanes it is the handle's number.
constexpr size_t kOpenFdOffset = 24;

bool full(int64_t sent) { return sent == -EAGAIN || sent == -ENOBUFS || sent == -ENOMEM; }

}  // namespace

void ChannelSession::begin(std::shared_ptr<cachefiles::Channel> channel, bool lanes) {
  channel_ = std::move(channel);
  if (lanes) numbered_ = wiring_.handles.numbered();
  channel_->on_wake([self = weak_from_this(), gate = wiring_.gate, lanes] {
    auto pass = gate->enter();
    if (!pass) return;
    auto session = self.lock();
    if (!session) return;
    if (lanes && session->backlog_.load(std::memory_order_relaxed) > kFew)
      session->pump_later();
    else
      session->pump();
  });
  front.ready = true;
}

void ChannelSession::answer(const ch::Head& head) {
  {
    std::lock_guard lock(mutex_);
    inbox_.answers.push_back(head);
  }
  pump();
}

bool ChannelSession::read(uint64_t tag, const ch::Read& read, bool wait) {
  if (waiting_.fetch_add(read.count, std::memory_order_relaxed) + read.count > ch::kMaxCredits) return false;
  {
    std::lock_guard lock(mutex_);
    (wait ? inbox_.credits : inbox_.probes).push_back({tag, read.buffer_size, read.count});
  }
  pump();
  return true;
}

bool ChannelSession::poll(uint64_t tag, const ch::Poll& poll, bool wait) {
  if (!wait) {
    answer(ch::encode_answer(ch::Op::kPoll, tag, channel_->poll()));
    return true;
  }
  if (waiting_.fetch_add(1, std::memory_order_relaxed) + 1 > ch::kMaxCredits) return false;
  {
    std::lock_guard lock(mutex_);
    inbox_.polls.push_back({tag, poll.seen});
  }
  pump();
  return true;
}

void ChannelSession::cancel(uint64_t tag, uint64_t target) {
  {
    std::lock_guard lock(mutex_);
    inbox_.cancellations.push_back({tag, target});
  }
  pump();
}

void ChannelSession::writable() { pump(); }

void ChannelSession::end() {
  {
    std::lock_guard lock(mutex_);
    inbox_.ending = true;
  }
  pump();
}

// The acquire of the first raise sees what the last run released when it lowered the count to 0, so the actor's own
// members need no lock.
void ChannelSession::pump() {
  if (calls_.fetch_add(1, std::memory_order_acq_rel) == 0) act(kBudget);
}

void ChannelSession::pump_later() {
  if (calls_.fetch_add(1, std::memory_order_acq_rel) == 0)
    wiring_.loop.post([self = shared_from_this()] { self->act(kLoopBudget); });
}

void ChannelSession::act(unsigned most) {
  for (;;) {
    uint32_t calls = calls_.load(std::memory_order_acquire);
    unsigned budget = most;
    bool drained = step(budget);
    send_joined();
    if (!drained) {
      // calls_ stays raised: the actor is ours until the loop has run it.
      wiring_.loop.post([self = shared_from_this()] { self->act(kLoopBudget); });
      return;
    }
    if (calls_.fetch_sub(calls, std::memory_order_acq_rel) == calls) return;
  }
}

bool ChannelSession::step(unsigned& budget) {
  if (ended_) return true;
  take_inbox();
  if (taken_.ending) {
    finish();
    return true;
  }
  flush();
  for (const ch::Head& head : taken_.answers) send(head);
  for (const Cancellation& cancellation : taken_.cancellations) cancel_now(cancellation);
  bool drained = deliver_credits(budget);
  if (channel_) backlog_.store(channel_->backlog(), std::memory_order_relaxed);
  for (const Credit& probe : taken_.probes) {
    waiting_.fetch_sub(1, std::memory_order_relaxed);
    read_once(probe, false);
  }
  answer_polls();
  return drained;
}

void ChannelSession::take_inbox() {
  taken_.answers.clear();
  taken_.credits.clear();
  taken_.probes.clear();
  taken_.polls.clear();
  taken_.cancellations.clear();
  {
    std::lock_guard lock(mutex_);
    std::swap(taken_, inbox_);
  }
  credits_.insert(credits_.end(), taken_.credits.begin(), taken_.credits.end());
  polls_.insert(polls_.end(), taken_.polls.begin(), taken_.polls.end());
}

void ChannelSession::cancel_now(const Cancellation& cancellation) {
  int64_t result = -ENOENT;
  auto cancelled = [&](ch::Op op, uint32_t count) {
    waiting_.fetch_sub(count, std::memory_order_relaxed);
    send(ch::encode_answer(op, cancellation.target, -ECANCELED));
    result = 0;
  };
  auto credit = std::ranges::find(credits_, cancellation.target, &Credit::tag);
  auto waiter = std::ranges::find(polls_, cancellation.target, &Waiter::tag);
  if (credit != credits_.end()) {
    cancelled(ch::Op::kRead, credit->left);
    credits_.erase(credit);
  } else if (waiter != polls_.end()) {
    cancelled(ch::Op::kPoll, 1);
    polls_.erase(waiter);
  }
  send(ch::encode_answer(ch::Op::kCancel, cancellation.tag, result));
}

bool ChannelSession::deliver_credits(unsigned& budget) {
  // Nothing is taken from the engine that the client has no room for.
  while (!credits_.empty() && unsent_.empty()) {
    if (budget == 0) return false;
    if (!read_once(credits_.front(), true)) return true;
    --budget;
    waiting_.fetch_sub(1, std::memory_order_relaxed);
    if (--credits_.front().left == 0) credits_.pop_front();
  }
  return true;
}

// False when nothing was deliverable and the asker waits.
bool ChannelSession::read_once(const Credit& credit, bool wait) {
  tag_ = credit.tag;
  delivered_ = false;
  int64_t result = channel_->read(credit.buffer_size, *this);
  pair_ = {};  // reserved, but the engine failed before it delivered
  if (result == 0 && wait) return false;
  if (!delivered_) send(ch::encode_answer(ch::Op::kRead, credit.tag, result));
  return true;
}

int ChannelSession::add_lane(Fd socket) {
  if (!numbered_ || lanes_ == ch::kMaxLanes) return -EINVAL;
  int type = 0;
  socklen_t size = sizeof type;
  // Messages need a socket that keeps them apart.
  if (::getsockopt(socket.get(), SOL_SOCKET, SO_TYPE, &type, &size) != 0) return -errno;
  if (type != SOCK_SEQPACKET) return -EPROTOTYPE;
  ++lanes_;
  wiring_.handles.add_lane(std::move(socket), numbered_, windows_, id);
  return 0;
}

int ChannelSession::reserve_fd() {
  if (numbered_) return static_cast<int>(numbered_->reserve());
  auto pair = socket_pair(SocketType::kSeqPacket);
  if (!pair) return -EMFILE;
  pair_ = *std::move(pair);
  return pair_.second.get();
}

// In the middle of channel_->read: what we answer decides the request's fate. A client that is gone has taken the
// message, as a kernel daemon that dies after its read has; `restore` brings it back.
bool ChannelSession::deliver(Bytes message, std::shared_ptr<cachefiles::Handle> handle, int fd) {
  if (message.size() > ch::kMaxInline) return false;
  Fd passed;
  Buffer copy;
  if (handle && numbered_) {
    numbered_->add(static_cast<uint32_t>(fd), std::move(handle));
    copy = to_buffer(message);
    // The engine put it there already; an engine of a test need not have.
    if (copy.size() >= kOpenFdOffset + sizeof(uint32_t))
      store_le<uint32_t>(copy.data() + kOpenFdOffset, static_cast<uint32_t>(fd));
    message = copy;
  } else if (handle) {
    wiring_.handles.add(std::move(pair_.first), std::move(handle), windows_, id);
    passed = std::move(pair_.second);
    copy = to_buffer(message);
    if (copy.size() >= kOpenFdOffset + sizeof(uint32_t)) store_le<uint32_t>(copy.data() + kOpenFdOffset, 0);
    message = copy;
  }
  delivered_ = true;
  send(ch::encode_answer(ch::Op::kRead, tag_, int64_t(message.size()), message.size()), message, std::move(passed));
  return true;
}

void ChannelSession::answer_polls() {
  if (polls_.empty()) return;
  unsigned mask = channel_->poll();
  std::erase_if(polls_, [&](const Waiter& waiter) {
    if (waiter.seen == mask) return false;
    waiting_.fetch_sub(1, std::memory_order_relaxed);
    send(ch::encode_answer(ch::Op::kPoll, waiter.tag, mask));
    return true;
  });
}

void ChannelSession::send(const ch::Head& head, Bytes body, Fd passed) {
  if (!numbered_) return transmit(head.bytes(), body, std::move(passed));
  if (joined_.size() + head.bytes().size() + body.size() > ch::kMaxFrame) send_joined();
  append(joined_, head.bytes());
  append(joined_, body);
}

void ChannelSession::send_joined() {
  if (joined_.empty()) return;
  if (!ended_) transmit(joined_, {}, {});
  joined_.clear();
}

void ChannelSession::transmit(Bytes head, Bytes body, Fd passed) {
  if (unsent_.empty()) {
    int raw = passed.get();
    int64_t sent = send_packet(socket.get(), head, body, std::span(&raw, passed ? 1 : 0));
    if (!full(sent)) return lost_if_failed(sent);
    congested_.store(true, std::memory_order_relaxed);
    wiring_.loop.post([self = shared_from_this()] {
      if (!self->front.closing) (void)self->wiring_.loop.modify(self->socket.get(), EPOLLOUT);
    });
  }
  Buffer message = to_buffer(head);
  append(message, body);
  unsent_.push_back({std::move(message), std::move(passed)});
}

// An answer that cannot be sent ends the connection, for its asker would wait for ever; the loop sees the hang-up.
void ChannelSession::lost_if_failed(int64_t sent) {
  if (sent < 0) ::shutdown(socket.get(), SHUT_RDWR);
}

void ChannelSession::flush() {
  if (unsent_.empty()) return;
  while (!unsent_.empty()) {
    Outgoing& first = unsent_.front();
    int raw = first.passed.get();
    int64_t sent = send_packet(socket.get(), first.message, {}, std::span(&raw, first.passed ? 1 : 0));
    if (full(sent)) return;
    lost_if_failed(sent);
    unsent_.pop_front();
  }
  congested_.store(false, std::memory_order_relaxed);
  wiring_.loop.post([self = shared_from_this()] {
    if (!self->front.closing) (void)self->wiring_.loop.modify(self->socket.get(), EPOLLIN);
  });
}

void ChannelSession::finish() {
  ended_ = true;
  credits_.clear();
  polls_.clear();
  unsent_.clear();
  if (channel_) channel_->on_wake([] {});
  wiring_.owner.session_ended(shared_from_this());
}

}  // namespace hydrant::daemon
