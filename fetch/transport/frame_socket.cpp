#include "fetch/transport/frame_socket.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>

#include "base/unix_socket.h"

namespace hydrant::fetch {
namespace ch = proto::channel;

namespace {

// Of one message: two parts each is far below what sendmsg takes.
constexpr size_t kMostFrames = 256;

iovec part(Bytes bytes) { return {const_cast<std::byte*>(bytes.data()), bytes.size()}; }

}  // namespace

struct FrameSocket::Batch {
  size_t left = 0;
  Waiter* waiter = nullptr;  // of its thread, while that is not the reader
};

FrameSocket::FrameSocket(Fd socket, Options options)
    : socket_(std::move(socket)),
      interrupt_(options.delivery ? ::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK) : -1),
      options_(std::move(options)),
      buffer_(options_.longest) {}

void FrameSocket::call(std::span<Call> calls, Deadline deadline) {
  Batch batch{.left = calls.size()};
  Lock held(mutex_);
  if (lost_) return;
  for (Call& call : calls) {
    if (free_.empty()) {
      free_.push_back(static_cast<uint32_t>(calls_.size()));
      calls_.push_back(nullptr);
    }
    uint32_t slot = free_.back();
    free_.pop_back();
    calls_[slot] = &call;
    call.batch_ = &batch;
    call.tag_ = uint64_t{++generation_ & INT32_MAX} << 32 | slot;
    call.head_.set_tag(call.tag_);
    outbox_.push_back({call.head_, call.body_, call.passed_});
  }
  if (!sending_) send_all(held, deadline);
  while (batch.left > 0 && !lost_ && !deadline.passed()) turn(held, deadline, &batch);
  if (batch.left > 0) {
    lose();
    // What was not answered may still be in somebody's hands, who sends for us.
    sent_.wait(held, [&] { return !sending_; });
    outbox_.clear();
    for (Call& call : calls) {
      if (!call.batch_) continue;
      auto slot = static_cast<uint32_t>(call.tag_);
      calls_[slot] = nullptr;
      free_.push_back(slot);
      call.batch_ = nullptr;
    }
  }
  hand_over();
}

bool FrameSocket::post(const ch::Head& head) {
  Lock held(mutex_);
  if (lost_) return false;
  outbox_.push_back({head, {}, -1});
  if (!sending_) send_all(held, Deadline::after(options_.timeout));
  return !lost_;
}

void FrameSocket::send_all(Lock& held, Deadline deadline) {
  sending_ = true;
  while (!outbox_.empty() && !lost_) {
    std::array<Unsent, kMostFrames> frames;
    size_t count = 0, size = 0;
    do {
      const Unsent& next = outbox_.front();
      size_t with = size + next.head.bytes().size() + next.body.size();
      // Descriptors go with a message of one frame.
      if (count > 0 && (with > ch::kMaxFrame || next.passed >= 0)) break;
      size = with;
      frames[count++] = next;
      outbox_.pop_front();
    } while (options_.joined && count < kMostFrames && !outbox_.empty() && frames[0].passed < 0);
    send_message(held, std::span(frames).first(count), deadline);
  }
  sending_ = false;
  sent_.notify_all();
}

void FrameSocket::send_message(Lock& held, std::span<const Unsent> frames, Deadline deadline) {
  std::array<iovec, 2 * kMostFrames> parts;
  size_t count = 0;
  for (const Unsent& frame : frames) {
    parts[count++] = part(frame.head.bytes());
    if (!frame.body.empty()) parts[count++] = part(frame.body);
  }
  int passed = frames.front().passed;
  for (;;) {
    held.unlock();
    int64_t sent = send_parts(socket_.get(), std::span(parts).first(count), std::span(&passed, passed >= 0 ? 1 : 0));
    held.lock();
    if (sent >= 0 || lost_) return;
    if (sent != -EAGAIN || deadline.passed()) return lose();
    // The server takes no frames while we leave its answers lying, so take them if nobody else does.
    if (!reading_) {
      read(held, deadline, POLLIN | POLLOUT);
      hand_over();
      continue;
    }
    held.unlock();
    wait_fd(socket_.get(), POLLOUT, deadline.sooner(Deadline::after(std::chrono::milliseconds(5))));
    held.lock();
  }
}

void FrameSocket::interrupt() {
  Lock held(mutex_);
  if (interrupt_) ::eventfd_write(interrupt_.get(), 1);
  wake_all();
}

void FrameSocket::shut() { ::shutdown(socket_.get(), SHUT_RDWR); }

void FrameSocket::wake(Waiter& waiter) {
  waiter.woken = true;
  waiter.changed.notify_one();
  waiters_.erase(waiter.at);
}

void FrameSocket::wake_all() {
  while (!waiters_.empty()) wake(*waiters_.front());
}

void FrameSocket::hand_over() {
  if (!reading_ && !waiters_.empty()) wake(*waiters_.front());
}

void FrameSocket::wake_taker() {
  auto taker = std::ranges::find(waiters_, true, &Waiter::takes_deliveries);
  if (taker != waiters_.end()) wake(**taker);
}

void FrameSocket::turn(Lock& held, Deadline deadline, Batch* batch) {
  if (!reading_) {
    reader_takes_ = !batch;
    read(held, deadline, POLLIN);
    return;
  }
  Waiter self;
  self.takes_deliveries = !batch;
  self.at = waiters_.insert(waiters_.end(), &self);
  if (batch) batch->waiter = &self;
  if (!self.changed.wait_until(held, deadline.at(), [&] { return self.woken; })) waiters_.erase(self.at);
  if (batch) batch->waiter = nullptr;
}

void FrameSocket::read(Lock& held, Deadline deadline, short events) {
  reading_ = true;
  if (events & POLLOUT) reader_takes_ = false;
  held.unlock();
  Packet packet;
  bool interrupted = false;
  int64_t size = receive_packet(socket_.get(), buffer_, &packet);
  if (size == -EAGAIN) {
    pollfd fds[2] = {{socket_.get(), events, 0}, {interrupt_.get(), POLLIN, 0}};
    interrupted = ::poll(fds, 2, deadline.left_ms()) > 0 && (fds[1].revents & POLLIN);
    if (interrupted) {
      eventfd_t value;
      ::eventfd_read(interrupt_.get(), &value);
    }
    if (fds[0].revents & ~POLLOUT) size = receive_packet(socket_.get(), buffer_, &packet);
  }
  held.lock();
  if (size != -EAGAIN) {
    Bytes rest = Bytes(buffer_).first(packet.size);
    bool whole = size > 0 && !packet.truncated;
    while (whole && !rest.empty()) {
      auto frame = options_.joined ? ch::take_frame(rest) : ch::decode_frame(std::exchange(rest, {}));
      whole = frame && frame->header.flags & ch::kAnswer;
      if (whole) dispatch(*frame, std::move(packet.fds[0]));
    }
    if (!whole) lose();
  }
  reading_ = false;
  if (interrupted) wake_all();
}

void FrameSocket::dispatch(const ch::Frame& frame, Fd passed) {
  uint64_t tag = frame.header.tag;
  if (tag == kDeliveryTag) {
    if (!options_.delivery) return;
    options_.delivery(frame, std::move(passed));
    // The reader sees for itself, once it has done with the message.
    if (!reader_takes_) wake_taker();
    return;
  }
  auto slot = static_cast<uint32_t>(tag);
  Call* call = slot < calls_.size() ? calls_[slot] : nullptr;
  if (!call || call->tag_ != tag) return;
  calls_[slot] = nullptr;
  free_.push_back(slot);
  call->result = frame.header.result;
  if (auto completion = ch::decode_completion(frame)) call->completion = *completion;
  if (auto hello = ch::decode_hello_answer(frame)) call->features = hello->features;
  Batch& batch = *std::exchange(call->batch_, nullptr);
  if (--batch.left == 0 && batch.waiter && !batch.waiter->woken) wake(*batch.waiter);
}

void FrameSocket::lose() {
  if (std::exchange(lost_, true)) return;
  ::shutdown(socket_.get(), SHUT_RDWR);
  if (options_.on_lost) options_.on_lost();
  wake_all();
}

}  // namespace hydrant::fetch
