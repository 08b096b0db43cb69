#include "daemon/handle_server.h"

#include <pthread.h>

#include <cerrno>

#include "proto/cachefiles_message.h"
#include "proto/device.h"

namespace hydrant::daemon {
namespace ch = proto::channel;

namespace {

// Frames of one handle in one turn, so that a busy handle does not starve its lane.
constexpr int kFramesPerTurn = 32;

int64_t pwrite_window(cachefiles::Handle& handle, const Windows& windows, const ch::Pwrite& pwrite) {
  auto [window, bytes] = windows.find(pwrite);
  return window ? handle.pwrite(bytes, pwrite.offset) : -EFAULT;
}

// The memory is mapped for the one call. As a window it must not be able to shrink.
int64_t write_memory(cachefiles::Handle& handle, const proto::device::WriteMemory& write, Fd memory) {
  Windows windows;
  if (windows.add(0, std::move(memory))) return -EFAULT;
  auto window = windows.get(0);
  if (write.length > window->bytes().size()) return -EFAULT;
  Bytes bytes = window->bytes().first(write.length);
  return write.positional ? handle.pwrite(bytes, write.offset) : handle.write(bytes);
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
    lane->loop->post([lane = lane.get()] {
      lane->connections.clear();
      lane->closers.clear();
    });
    lane->loop->stop();
    lane->thread.join();
  }
}

void HandleServer::add(Fd socket, std::shared_ptr<cachefiles::Handle> handle, std::shared_ptr<const Windows> windows,
                       uint64_t owner) {
  count_->fetch_add(1, std::memory_order_relaxed);
  Lane& lane = *lanes_[next_lane_.fetch_add(1, std::memory_order_relaxed) % lanes_.size()];
  auto connection = std::make_unique<Connection>();
  *connection = {std::move(socket), std::move(handle), {}, std::move(windows), owner, ++serials_, {}};
  watch(lane, std::move(connection));
}

void HandleServer::add_lane(Fd socket, std::shared_ptr<NumberedHandles> handles, std::shared_ptr<const Windows> windows,
                            uint64_t owner) {
  Lane& lane = *lanes_[next_lane_.fetch_add(1, std::memory_order_relaxed) % lanes_.size()];
  auto connection = std::make_unique<Connection>();
  *connection = {std::move(socket), {}, std::move(handles), std::move(windows), owner, ++serials_, {}};
  watch(lane, std::move(connection));
}

void HandleServer::watch(Lane& lane, std::unique_ptr<Connection> connection) {
  lane.loop->post([this, &lane, connection = std::move(connection)]() mutable {
    Connection& added = *connection;
    lane.connections[added.socket.get()] = std::move(connection);
    auto watched = lane.loop->add(added.socket.get(), EPOLLIN,
                                  [this, &lane, &added](EventLoop::Events events) { ready(lane, added, events); });
    if (!watched) close(lane, added, CloseReason::kTransport);
  });
}

void HandleServer::close_all(uint64_t owner, UniqueFunction<void()> done) {
  on_every_lane(
      [this, owner](Lane& lane) {
        std::vector<Connection*> ending;
        for (auto& [fd, connection] : lane.connections)
          if (connection->owner == owner) ending.push_back(connection.get());
        for (Connection* connection : ending) close(lane, *connection, CloseReason::kPeer);
      },
      std::move(done));
}

void HandleServer::sweep(UniqueFunction<void()> done) {
  on_every_lane(
      [this](Lane& lane) {
        std::vector<Connection*> left;
        for (auto& [fd, connection] : lane.connections)
          if (hung_up(fd)) left.push_back(connection.get());
        for (Connection* connection : left) ready(lane, *connection, EPOLLIN | EPOLLHUP);
      },
      std::move(done));
}

void HandleServer::on_every_lane(std::function<void(Lane&)> work, UniqueFunction<void()> done) {
  struct Rest {
    std::atomic<size_t> lanes;
    std::function<void(Lane&)> work;
    UniqueFunction<void()> done;
  };
  // Shared by the lanes; the last one to finish runs `done`.
  auto rest = std::make_shared<Rest>();
  rest->lanes = lanes_.size();
  rest->work = std::move(work);
  rest->done = std::move(done);
  for (auto& each : lanes_) {
    each->loop->post([lane = each.get(), rest] {
      rest->work(*lane);
      if (rest->lanes.fetch_sub(1, std::memory_order_acq_rel) == 1) rest->done();
    });
  }
}

void HandleServer::ready(Lane& lane, Connection& connection, EventLoop::Events events) {
  int socket = connection.socket.get();
  while (!connection.unsent.empty()) {
    int64_t sent = send_packet(socket, connection.unsent.front());
    if (sent == -EAGAIN && !(events & (EPOLLHUP | EPOLLERR))) return;
    if (sent < 0) return close(lane, connection, CloseReason::kPeer);
    connection.unsent.pop_front();
    if (!connection.unsent.empty()) continue;
    if (!lane.loop->modify(socket, EPOLLIN)) return close(lane, connection, CloseReason::kTransport);
  }
  for (int i = 0; i < kFramesPerTurn && connection.unsent.empty(); ++i) {
    Packet packet;
    int64_t size = receive_packet(socket, lane.buffer, &packet);
    if (size == -EAGAIN) return;
    if (size <= 0) return close(lane, connection, CloseReason::kPeer);
    if (packet.truncated) return close(lane, connection, CloseReason::kMalformed);
    Bytes message = Bytes(lane.buffer).first(packet.size);
    std::optional<CloseReason> refused;
    if (connection.handles) {
      refused = packet.fd_count != 0 ? CloseReason::kDescriptors : serve_lane(lane, connection, message);
    } else if (packet.fd_count != 0) {
      refused = serve_device(lane, connection, message, packet);
    } else if (auto performed = perform(connection, message); !performed) {
      refused = performed.error();
    } else if (*performed) {
      refused = answer(lane, connection, (*performed)->bytes());
    }
    if (refused) return close(lane, connection, *refused);
  }
}

std::optional<CloseReason> HandleServer::answer(Lane& lane, Connection& connection, Bytes message) {
  int64_t sent = connection.unsent.empty() ? send_packet(connection.socket.get(), message) : -EAGAIN;
  if (sent >= 0) return std::nullopt;
  if (sent != -EAGAIN) return CloseReason::kPeer;
  connection.unsent.push_back(to_buffer(message));
  if (!lane.loop->modify(connection.socket.get(), EPOLLOUT)) return CloseReason::kTransport;
  return std::nullopt;
}

tl::expected<std::optional<ch::Head>, CloseReason> HandleServer::perform(Connection& connection, Bytes message) {
  auto frame = ch::decode_frame(message);
  if (!frame) return tl::unexpected(CloseReason::kMalformed);
  return perform(*connection.handle, *connection.windows, *frame);
}

tl::expected<std::optional<ch::Head>, CloseReason> HandleServer::perform(cachefiles::Handle& handle,
                                                                         const Windows& windows,
                                                                         const ch::Frame& frame) {
  const ch::Header& header = frame.header;
  switch (header.op) {
    case ch::Op::kPwrite: {
      auto pwrite = ch::decode_pwrite(frame);
      if (!pwrite) break;
      int64_t written = header.flags & ch::kFromWindow ? pwrite_window(handle, windows, *pwrite)
                                                       : handle.pwrite(pwrite->data, pwrite->offset);
      int32_t completion = -ECANCELED;
      if (header.flags & ch::kComplete && written == int64_t(pwrite->length))
        completion = handle.ioctl(proto::kReadComplete, pwrite->msg_id);
      if (header.flags & ch::kNoAnswer) return std::nullopt;
      return header.flags & ch::kComplete ? ch::encode_completion(header.tag, written, completion)
                                          : ch::encode_answer(header.op, header.tag, written);
    }
    case ch::Op::kAppend: {
      auto bytes = ch::decode_bytes(frame);
      if (!bytes) break;
      return ch::encode_answer(header.op, header.tag, handle.write(*bytes));
    }
    case ch::Op::kLseek: {
      auto lseek = ch::decode_lseek(frame);
      if (!lseek) break;
      return ch::encode_answer(header.op, header.tag, handle.lseek(lseek->offset, lseek->whence));
    }
    case ch::Op::kIoctl: {
      auto ioctl = ch::decode_ioctl(frame);
      if (!ioctl) break;
      return ch::encode_answer(header.op, header.tag, handle.ioctl(ioctl->number, ioctl->argument));
    }
    default: return tl::unexpected(CloseReason::kDisorder);
  }
  return tl::unexpected(CloseReason::kMalformed);
}

std::optional<CloseReason> HandleServer::serve_device(Lane& lane, Connection& connection, Bytes message,
                                                      Packet& packet) {
  auto frame = ch::decode_frame(message);
  if (!frame) return CloseReason::kMalformed;
  bool memory = frame->header.op == ch::Op::kWriteMemory;
  if (packet.fd_count != (memory ? 2u : 1u)) return CloseReason::kDescriptors;
  std::optional<ch::Head> answer;
  if (memory) {
    auto write = proto::device::decode_write_memory(*frame);
    if (!write) return CloseReason::kMalformed;
    answer = ch::encode_answer(frame->header.op, frame->header.tag,
                               write_memory(*connection.handle, *write, std::move(packet.fds[1])));
  } else if (frame->header.op == ch::Op::kClosing) {
    if (!proto::device::decode_bare(*frame)) return CloseReason::kMalformed;
    closing(lane, connection, std::move(packet.fds[0]));
    return std::nullopt;
  } else {
    auto performed = perform(connection, message);
    if (!performed) return performed.error();
    answer = *performed;
  }
  // Whoever asked may be gone, or never was a socket: that is his business.
  if (answer) (void)send_packet(packet.fds[0].get(), answer->bytes());
  return std::nullopt;
}

void HandleServer::closing(Lane& lane, Connection& connection, Fd reply) {
  int raw = reply.get();
  auto watched = lane.loop->add(raw, EPOLLIN, [this, &lane, raw](EventLoop::Events) {
    lane.loop->remove(raw);
    auto closer = lane.closers.extract(raw);
    auto at = lane.connections.find(closer.mapped().socket);
    if (at != lane.connections.end() && at->second->serial == closer.mapped().serial &&
        hung_up(at->second->socket.get()))
      ready(lane, *at->second, EPOLLIN | EPOLLHUP);
  });
  if (watched) lane.closers.emplace(raw, Closer{std::move(reply), connection.socket.get(), connection.serial});
}

void HandleServer::close(Lane& lane, Connection& connection, CloseReason reason) {
  if (reason != CloseReason::kPeer) counters_->add(reason);
  if (connection.handle) count_->fetch_sub(1, std::memory_order_relaxed);
  int socket = connection.socket.get();
  lane.loop->remove(socket);
  // Ends the Connection, closes the socket, drops the Handle: the last close of the kernel's anonymous file.
  lane.connections.erase(socket);
  if (dropped_) dropped_();
}

}  // namespace hydrant::daemon
