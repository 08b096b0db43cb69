#include "fetch/transport/frame_socket.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

#include <cerrno>

#include "base/unix_socket.h"

namespace hydrant::fetch {
namespace ch = proto::channel;

FrameSocket::FrameSocket(Fd socket, size_t longest, Duration timeout, Delivery delivery)
    : socket_(std::move(socket)),
      interrupt_(delivery ? ::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK) : -1),
      timeout_(timeout),
      delivery_(std::move(delivery)),
      buffer_(longest) {}

uint64_t FrameSocket::new_tag() {
  Lock held(mutex_);
  return next_tag_++;
}

FrameSocket::Answer FrameSocket::call(uint64_t tag, const ch::Head& head, Bytes body, int passed, Deadline deadline) {
  Pending pending;
  {
    Lock held(mutex_);
    if (lost_) return {-EPIPE};
    pending_[tag] = &pending;
  }
  bool sent = send(head, body, passed, deadline);
  Lock held(mutex_);
  if (!sent || !wait(held, deadline, [&] { return pending.done; })) {
    lose(held);
    pending_.erase(tag);
    if (!pending.done) return {-EPIPE};
  }
  return pending.answer;
}

bool FrameSocket::post(const ch::Head& head) {
  if (send(head, {}, -1, Deadline::after(timeout_))) return true;
  Lock held(mutex_);
  lose(held);
  return false;
}

bool FrameSocket::send(const ch::Head& head, Bytes body, int passed, Deadline deadline) {
  for (;;) {
    int64_t sent = send_packet(socket_.get(), head.bytes(), body, std::span(&passed, passed >= 0 ? 1 : 0));
    if (sent >= 0) return true;
    if (sent != -EAGAIN || deadline.passed()) return false;
    // The server takes no frames while we leave its answers lying, so take them if nobody else does.
    Deadline slice = deadline.sooner(Deadline::after(std::chrono::milliseconds(5)));
    if (wait_fd(socket_.get(), POLLOUT, slice)) continue;
    Lock held(mutex_);
    if (lost_) return false;
    if (!reading_) receive(held);
  }
}

void FrameSocket::interrupt() {
  {
    Lock held(mutex_);
    if (interrupt_) ::eventfd_write(interrupt_.get(), 1);
  }
  changed_.notify_all();
}

void FrameSocket::turn(Lock& held, Deadline deadline) {
  if (reading_) {
    changed_.wait_until(held, deadline.at());
    return;
  }
  reading_ = true;
  held.unlock();
  pollfd fds[2] = {{socket_.get(), POLLIN, 0}, {interrupt_.get(), POLLIN, 0}};
  bool interrupted = ::poll(fds, 2, deadline.left_ms()) > 0 && (fds[1].revents & POLLIN);
  if (interrupted) {
    eventfd_t value;
    ::eventfd_read(interrupt_.get(), &value);
  }
  held.lock();
  reading_ = false;
  if (interrupted) changed_.notify_all();
  if (fds[0].revents) receive(held);
}

void FrameSocket::receive(Lock& held) {
  // The lock is held over a call that does not wait, so buffer_ has one user.
  Packet packet;
  int64_t size = receive_packet(socket_.get(), buffer_, &packet);
  if (size == -EAGAIN) return;
  auto frame = size > 0 && !packet.truncated ? ch::decode_frame(Bytes(buffer_).first(packet.size)) : std::nullopt;
  if (!frame || !(frame->header.flags & ch::kAnswer)) return lose(held);
  dispatch(*frame, std::move(packet.fds[0]));
}

void FrameSocket::dispatch(const ch::Frame& frame, Fd passed) {
  auto found = pending_.find(frame.header.tag);
  if (found != pending_.end()) {
    Pending& pending = *found->second;
    pending.answer.result = frame.header.result;
    if (auto completion = ch::decode_completion(frame)) pending.answer.completion = *completion;
    pending.done = true;
    pending_.erase(found);
  } else if (delivery_) {
    delivery_(frame, std::move(passed));
  }
  changed_.notify_all();
}

void FrameSocket::lose(Lock&) {
  if (lost_) return;
  lost_ = true;
  ::shutdown(socket_.get(), SHUT_RDWR);
  changed_.notify_all();
}

}  // namespace hydrant::fetch
