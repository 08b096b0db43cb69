#include "daemon/handle_server.h"

#include <pthread.h>

#include <cerrno>

#include "base/unix_socket.h"
#include "proto/cachefiles_message.h"

namespace hydrant::daemon {
namespace ch = proto::channel;

namespace {

// Frames of one handle in one turn, so that a busy handle does not starve its lane.
constexpr int kFramesPerTurn = 32;

int64_t pwrite_window(cachefiles::Handle& handle, const Windows& windows, const ch::Pwrite& pwrite) {
  auto window = windows.get(pwrite.window);
  // What a bad pointer would be to the kernel's pwrite. The decoder has checked the sum.
  if (!window || pwrite.window_offset + pwrite.length > window->bytes().size()) return -EFAULT;
  int64_t written = handle.pwrite(window->bytes().subspan(pwrite.window_offset, pwrite.length), pwrite.offset);
  window->forget(pwrite.window_offset, pwrite.length);
  return written;
}

}  // namespace

Result<std::unique_ptr<HandleServer>> HandleServer::start(unsigned threads, std::shared_ptr<CloseCounters> counters) {
  std::unique_ptr<HandleServer> server(new HandleServer(std::move(counters)));
  for (unsigned i = 0; i < threads; ++i) {
    auto lane = std::make_unique<Lane>();
    HYDRANT_TRY(lane->loop, EventLoop::create());
    lane->buffer.resize(ch::kMaxFrame);
    server->lanes_.push_back(std::move(lane));
  }
  for (auto& lane : server->lanes_)
    lane->thread = std::jthread([&loop = *lane->loop] {
      pthread_setname_np(pthread_self(), "handles");
      loop.run();
    });
  return server;
}

HandleServer::~HandleServer() {
  for (auto& lane : lanes_) {
    if (!lane->thread.joinable()) continue;
    lane->loop->post([lane = lane.get()] { lane->connections.clear(); });
    lane->loop->stop();
    lane->thread.join();
  }
}

void HandleServer::add(Fd socket, std::shared_ptr<cachefiles::Handle> handle, std::shared_ptr<const Windows> windows,
                       uint64_t owner) {
  count_.fetch_add(1, std::memory_order_relaxed);
  Lane& lane = *lanes_[next_lane_.fetch_add(1, std::memory_order_relaxed) % lanes_.size()];
  auto connection = std::make_unique<Connection>();
  *connection = {std::move(socket), std::move(handle), std::move(windows), owner, {}};
  lane.loop->post([this, &lane, connection = std::move(connection)]() mutable {
    Connection& added = *connection;
    lane.connections[added.socket.get()] = std::move(connection);
    auto watched = lane.loop->add(added.socket.get(), EPOLLIN,
                                  [this, &lane, &added](EventLoop::Events events) { ready(lane, added, events); });
    if (!watched) close(lane, added, CloseReason::kTransport);
  });
}

void HandleServer::close_all(uint64_t owner, UniqueFunction<void()> done) {
  struct Rest {
    std::atomic<size_t> lanes;
    UniqueFunction<void()> done;
  };
  // Shared by the lanes; the last one to finish runs `done`.
  auto rest = std::make_shared<Rest>();
  rest->lanes = lanes_.size();
  rest->done = std::move(done);
  for (auto& each : lanes_) {
    each->loop->post([this, lane = each.get(), owner, rest] {
      std::vector<Connection*> ending;
      for (auto& [fd, connection] : lane->connections)
        if (connection->owner == owner) ending.push_back(connection.get());
      for (Connection* connection : ending) close(*lane, *connection, CloseReason::kPeer);
      if (rest->lanes.fetch_sub(1, std::memory_order_acq_rel) == 1) rest->done();
    });
  }
}

void HandleServer::ready(Lane& lane, Connection& connection, EventLoop::Events events) {
  int socket = connection.socket.get();
  if (connection.unsent) {
    int64_t sent = send_packet(socket, connection.unsent->bytes());
    if (sent == -EAGAIN && !(events & (EPOLLHUP | EPOLLERR))) return;
    if (sent < 0) return close(lane, connection, CloseReason::kPeer);
    connection.unsent.reset();
    if (!lane.loop->modify(socket, EPOLLIN)) return close(lane, connection, CloseReason::kTransport);
  }
  for (int i = 0; i < kFramesPerTurn; ++i) {
    Packet packet;
    int64_t size = receive_packet(socket, lane.buffer, &packet);
    if (size == -EAGAIN) return;
    if (size <= 0) return close(lane, connection, CloseReason::kPeer);
    if (packet.fd_count != 0) return close(lane, connection, CloseReason::kDescriptors);
    if (packet.truncated) return close(lane, connection, CloseReason::kMalformed);
    auto answer = perform(connection, Bytes(lane.buffer).first(packet.size));
    if (!answer) return close(lane, connection, answer.error());
    if (!*answer) continue;
    int64_t sent = send_packet(socket, (*answer)->bytes());
    if (sent == -EAGAIN) {
      connection.unsent = **answer;
      if (!lane.loop->modify(socket, EPOLLOUT)) return close(lane, connection, CloseReason::kTransport);
      return;
    }
    if (sent < 0) return close(lane, connection, CloseReason::kPeer);
  }
}

tl::expected<std::optional<ch::Head>, CloseReason> HandleServer::perform(Connection& connection, Bytes message) {
  auto frame = ch::decode_frame(message);
  if (!frame) return tl::unexpected(CloseReason::kMalformed);
  cachefiles::Handle& handle = *connection.handle;
  const ch::Header& header = frame->header;
  switch (header.op) {
    case ch::Op::kPwrite: {
      auto pwrite = ch::decode_pwrite(*frame);
      if (!pwrite) break;
      int64_t written = header.flags & ch::kFromWindow ? pwrite_window(handle, *connection.windows, *pwrite)
                                                       : handle.pwrite(pwrite->data, pwrite->offset);
      int32_t completion = -ECANCELED;
      if (header.flags & ch::kComplete && written == int64_t(pwrite->length))
        completion = handle.ioctl(proto::kReadComplete, pwrite->msg_id);
      if (header.flags & ch::kNoAnswer) return std::nullopt;
      return header.flags & ch::kComplete ? ch::encode_completion(header.tag, written, completion)
                                          : ch::encode_answer(header.op, header.tag, written);
    }
    case ch::Op::kAppend: {
      auto bytes = ch::decode_bytes(*frame);
      if (!bytes) break;
      return ch::encode_answer(header.op, header.tag, handle.write(*bytes));
    }
    case ch::Op::kLseek: {
      auto lseek = ch::decode_lseek(*frame);
      if (!lseek) break;
      return ch::encode_answer(header.op, header.tag, handle.lseek(lseek->offset, lseek->whence));
    }
    case ch::Op::kIoctl: {
      auto ioctl = ch::decode_ioctl(*frame);
      if (!ioctl) break;
      return ch::encode_answer(header.op, header.tag, handle.ioctl(ioctl->number, ioctl->argument));
    }
    default: return tl::unexpected(CloseReason::kDisorder);
  }
  return tl::unexpected(CloseReason::kMalformed);
}

void HandleServer::close(Lane& lane, Connection& connection, CloseReason reason) {
  if (reason != CloseReason::kPeer) counters_->add(reason);
  count_.fetch_sub(1, std::memory_order_relaxed);
  int socket = connection.socket.get();
  lane.loop->remove(socket);
  // Ends the Connection, closes the socket, drops the Handle: the last close of the kernel's anonymous file.
  lane.connections.erase(socket);
}

}  // namespace hydrant::daemon
