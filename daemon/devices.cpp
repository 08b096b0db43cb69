#include "daemon/devices.h"

#include <sys/random.h>
#include <sys/socket.h>

#include <cerrno>

#include "base/log.h"

namespace hydrant::daemon {
namespace ch = proto::channel;
namespace dev = proto::device;

namespace {

constexpr int kFramesPerTurn = 64;
constexpr size_t kOpenFdOffset = 24;  // spec 6.1; the program's own library fills it in

// Names of sockets are the namespace's, not ours alone: start anywhere.
uint64_t random_start() {
  uint64_t start = 0;
  (void)!::getrandom(&start, sizeof start, 0);
  return start;
}

}  // namespace

struct Devices::Device {
  Device(uint64_t number, Fd end, std::shared_ptr<cachefiles::Channel> opened, Readiness shown)
      : id(number), socket(std::move(end)), channel(std::move(opened)), readiness(std::move(shown)) {}

  void update() { readiness.show(channel->poll()); }

  const uint64_t id;
  const Fd socket;
  std::shared_ptr<cachefiles::Channel> channel;  // empty once the device has ended
  Readiness readiness;
  std::atomic<bool> woken{false};  // an update is on its way to the loop
  std::vector<Fd> closers;         // told when the channel is released
  bool released = false;
};

// The reading process, as far as the engine sees it.
class Devices::Delivery final : public cachefiles::Receiver {
 public:
  Delivery(const dev::Read& read, int reply, uint64_t id) : read_(read), reply_(reply), id_(id) {}

  // The reply socket becomes the handle, so it needs its name now: afterwards nothing can fail any more.
  int reserve_fd() override {
    if (read_.descriptor) return read_.descriptor;
    return name_socket(reply_, {.kind = dev::Kind::kHandle, .access = 1, .id = id_}) ? -ENFILE : 0;
  }
  bool deliver(Bytes message, std::shared_ptr<cachefiles::Handle> handle, int) override {
    if (message.size() > read_.usable) return false;
    body = to_buffer(message);
    opened = std::move(handle);
    if (opened && body.size() >= kOpenFdOffset + sizeof(uint32_t)) store_le<uint32_t>(body.data() + kOpenFdOffset, 0);
    return true;
  }

  Buffer body;
  std::shared_ptr<cachefiles::Handle> opened;

 private:
  const dev::Read& read_;
  const int reply_;
  const uint64_t id_;
};

Devices::Devices(Wiring wiring) : wiring_(std::move(wiring)), buffer_(ch::kMaxFrame), next_id_(random_start()) {}

Devices::~Devices() {
  for (auto& [socket, device] : devices_) device->channel->on_wake([] {});
}

void Devices::open(uint32_t access, Done done) { open_now(access, std::move(done), false); }

void Devices::open_now(uint32_t access, Done done, bool again) {
  std::shared_ptr<cachefiles::Channel> channel;
  int result = wiring_.engine.open_channel(cachefiles::Caller{}, &channel);
  if (result == 0) {
    Fd socket = admit(access, std::move(channel), &result);
    return done(result, std::move(socket));
  }
  if (result != -EBUSY || again) return done(result, {});
  // To its program a close is over when it returns; here its news may still be in a socket.
  std::vector<DevicePtr> left;
  for (auto& [socket, device] : devices_)
    if (hung_up(socket)) left.push_back(device);
  for (auto& device : left) end(device, CloseReason::kPeer);
  wiring_.handles.sweep([this, access, done = std::move(done)]() mutable {
    wiring_.loop.post([this, access, done = std::move(done)]() mutable { open_now(access, std::move(done), true); });
  });
}

Fd Devices::admit(uint32_t access, std::shared_ptr<cachefiles::Channel> channel, int* result) {
  auto refuse = [&](int err) {
    *result = err;
    wiring_.handles.run([channel = std::move(channel)] {});
    return Fd();
  };
  uint64_t id = next_id_++;
  auto pair = socket_pair(SocketType::kSeqPacket);
  auto readiness = Readiness::create(id);
  if (!pair || !readiness) return refuse(-ENFILE);
  int raw = pair->first.get();
  if (int err = name_socket(raw, {.kind = dev::Kind::kDevice, .access = static_cast<uint8_t>(access), .id = id}))
    return refuse(err);
  auto device = std::make_shared<Device>(id, std::move(pair->first), channel, *std::move(readiness));
  auto watched = wiring_.loop.add(raw, EPOLLIN, [this, raw](EventLoop::Events) {
    DevicePtr held = devices_.at(raw);
    readable(held);
  });
  if (!watched) return refuse(-ENOMEM);
  channel->on_wake([weak = std::weak_ptr(device), &loop = wiring_.loop, gate = wiring_.gate] {
    auto pass = gate->enter();
    if (!pass) return;
    auto woken = weak.lock();
    // One update for any number of wakes: whoever raises the flag posts it; it is lowered before the mask is asked for.
    if (!woken || woken->woken.exchange(true, std::memory_order_acq_rel)) return;
    loop.post([weak] {
      auto alive = weak.lock();
      if (!alive) return;
      alive->woken.store(false, std::memory_order_release);
      if (alive->channel) alive->update();
    });
  });
  device->update();
  devices_.emplace(raw, std::move(device));
  users_.fetch_add(1, std::memory_order_relaxed);
  *result = 0;
  // The program's end blocks, as its descriptors do unless it says otherwise.
  ::fcntl(pair->second.get(), F_SETFL, 0);
  return std::move(pair->second);
}

void Devices::hold(Done done) {
  auto pair = socket_pair(SocketType::kSeqPacket);
  if (!pair) return done(-ENFILE, {});
  int raw = pair->first.get();
  if (int err = name_socket(raw, {.kind = dev::Kind::kHold, .access = 0, .id = next_id_++})) return done(err, {});
  auto watched = wiring_.loop.add(raw, EPOLLIN, [this, raw](EventLoop::Events) {
    wiring_.loop.remove(raw);
    holds_.erase(raw);
    gone();
  });
  if (!watched) return done(-ENOMEM, {});
  holds_.emplace(raw, std::move(pair->first));
  users_.fetch_add(1, std::memory_order_relaxed);
  done(0, std::move(pair->second));
}

void Devices::gone() {
  users_.fetch_sub(1, std::memory_order_relaxed);
  if (wiring_.ended) wiring_.ended();
}

void Devices::readable(const DevicePtr& device) {
  for (int i = 0; i < kFramesPerTurn && device->channel; ++i) {
    Packet packet;
    int64_t size = receive_packet(device->socket.get(), buffer_, &packet);
    if (size == -EAGAIN) return;
    if (size <= 0) return end(device, CloseReason::kPeer);
    if (packet.fd_count == 0) return end(device, CloseReason::kDescriptors);
    auto frame = packet.truncated ? std::nullopt : ch::decode_frame(MutableBytes(buffer_).first(packet.size));
    if (!frame || !serve(device, *frame, packet)) return end(device, CloseReason::kMalformed);
  }
}

bool Devices::serve(const DevicePtr& device, const ch::Frame& frame, Packet& packet) {
  int reply = packet.fds[0].get();
  switch (frame.header.op) {
    case ch::Op::kWrite: {
      auto command = ch::decode_bytes(frame);
      if (!command || packet.fd_count > 2) return false;
      // Without a directory, relative paths and names lead nowhere.
      bool placed = packet.fd_count == 2 && check_directory(packet.fds[1].get()) == 0;
      cachefiles::Caller caller{.sys_admin = true, .cwd = placed ? packet.fds[1].get() : -1};
      int64_t result = device->channel->write(*command, caller);
      device->update();
      (void)send_packet(reply, ch::encode_answer(frame.header.op, frame.header.tag, result).bytes());
      return true;
    }
    case ch::Op::kDeviceRead: {
      auto asked = dev::decode_read(frame);
      if (!asked || packet.fd_count != 1) return false;
      read(*device, frame, *asked, std::move(packet.fds[0]));
      return true;
    }
    case ch::Op::kReadiness: {
      if (!dev::decode_bare(frame) || packet.fd_count != 1) return false;
      int passed = device->readiness.descriptor();
      (void)send_packet(reply, ch::encode_answer(frame.header.op, frame.header.tag, 0).bytes(), {},
                        std::span(&passed, 1));
      return true;
    }
    case ch::Op::kClosing: {
      if (!dev::decode_bare(frame) || packet.fd_count != 1) return false;
      closing(device, std::move(packet.fds[0]));
      return true;
    }
    default: return false;
  }
}

void Devices::read(Device& device, const ch::Frame& frame, const dev::Read& asked, Fd reply) {
  Delivery delivery(asked, reply.get(), next_id_++);
  int64_t result = device.channel->read(asked.buffer_size, delivery);
  device.update();
  auto head = dev::encode_read_answer(frame.header.tag, result, delivery.body.size(), bool(delivery.opened));
  // A process that died in the middle has taken its message, as it would have from the kernel.
  (void)send_packet(reply.get(), head.bytes(), delivery.body);
  if (!delivery.opened) return;
  wiring_.handles.add(std::move(reply), std::move(delivery.opened), std::make_shared<Windows>(), device.id);
}

void Devices::closing(const DevicePtr& device, Fd reply) {
  int raw = reply.get();
  auto watched = wiring_.loop.add(raw, EPOLLIN, [this, device, raw](EventLoop::Events) {
    wiring_.loop.remove(raw);
    auto closer = closers_.extract(raw);
    if (device->channel && hung_up(device->socket.get())) end(device, CloseReason::kPeer);
    // Another descriptor of the device is open, or the release is over: dropping the socket says so.
    if (!device->channel && !device->released) device->closers.push_back(std::move(closer.mapped()));
  });
  if (watched) closers_.emplace(raw, std::move(reply));
}

// The channel goes on a handle thread, for it may write to the disk. Handles live on and pin the cache.
void Devices::end(const DevicePtr& device, CloseReason reason) {
  if (!device->channel) return;
  wiring_.counters->add(reason);
  if (reason != CloseReason::kPeer) log::warn("device.refused", {{"reason", to_string(reason)}});
  int raw = device->socket.get();
  wiring_.loop.remove(raw);
  ::shutdown(raw, SHUT_RDWR);
  device->channel->on_wake([] {});
  wiring_.handles.run([this, device, channel = std::move(device->channel)]() mutable {
    channel.reset();
    wiring_.loop.post([this, device] {
      device->released = true;
      device->closers.clear();
      gone();
    });
  });
  device->channel.reset();
  DevicePtr keep = device;  // `device` may refer to the entry
  devices_.erase(raw);
}

}  // namespace hydrant::daemon
