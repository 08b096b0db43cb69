#include "fetch/transport/socket_control.h"

#include <sys/socket.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <deque>

#include "base/unix_socket.h"
#include "fetch/transport/frame_socket.h"
#include "fetch/transport/window_slots.h"
#include "proto/cachefiles_message.h"

namespace hydrant::fetch {
namespace ch = proto::channel;

namespace {

constexpr int kSendBuffer = 1 << 20;
constexpr uint32_t kWindowId = 0;
// Answers on a handle's own socket are a header and at most one number.
constexpr size_t kHandleAnswer = 128;

class SocketHandle final : public ObjectHandle {
 public:
  // `number` on a lane; 0: the socket is the handle's own.
  SocketHandle(std::shared_ptr<FrameSocket> frames, uint32_t number, std::shared_ptr<WindowSlots> slots,
               Duration timeout)
      : frames_(std::move(frames)), number_(number), slots_(std::move(slots)), timeout_(timeout) {}
  ~SocketHandle() override {
    if (number_) frames_->post(addressed(ch::encode_drop(0)));
  }

  int64_t pwrite(Bytes bytes, uint64_t offset) override { return write(bytes, offset, std::nullopt); }

  int64_t complete(uint32_t msg_id) override {
    return frames_->call(addressed(ch::encode_ioctl(0, {.argument = msg_id, .number = proto::kReadComplete})));
  }

  int64_t fill_and_complete(Bytes bytes, uint64_t offset, uint32_t msg_id) override {
    return write(bytes, offset, msg_id);
  }

  int64_t lseek(int64_t offset, int whence) override {
    return frames_->call(addressed(ch::encode_lseek(0, {.offset = offset, .whence = whence})));
  }

  bool proves_writes() override {
    if (!proves_writes_.load(std::memory_order_relaxed))
      proves_writes_ =
          frames_->call(addressed(ch::encode_ioctl(0, {.argument = 0, .number = proto::kProvesWrites}))) == 1;
    return proves_writes_.load(std::memory_order_relaxed);
  }

  const std::shared_ptr<FrameSocket>& frames() const { return frames_; }
  // The frame of a fill that one frame can hold.
  std::optional<FrameSocket::Call> one_frame(const Fill& fill) const {
    ch::Pwrite pwrite{.offset = fill.offset, .length = fill.bytes.size(), .msg_id = fill.msg_id};
    uint16_t flags = ch::kComplete;
    if (auto at = slots_->offset_of(fill.bytes)) {
      pwrite.window_offset = *at;
      pwrite.window = kWindowId;
      flags |= ch::kFromWindow;
    } else if (fill.bytes.size() <= ch::kMaxInline) {
      pwrite.data = fill.bytes;
    } else {
      return std::nullopt;
    }
    return FrameSocket::Call(addressed(ch::encode_pwrite(0, pwrite, flags)), pwrite.data);
  }
  // What the answer to it says.
  int64_t result(const FrameSocket::Call& call, const Fill& fill) const {
    if (call.result == -EPIPE) retire(fill.bytes);
    bool whole = call.result == static_cast<int64_t>(fill.bytes.size());
    return whole && call.completion < 0 ? call.completion : call.result;
  }

  std::optional<Staging> stage(size_t size) override { return slots_->stage(size); }

 private:
  int64_t write(Bytes bytes, uint64_t offset, std::optional<uint32_t> msg_id) {
    if (auto at = slots_->offset_of(bytes)) return write_window(*at, bytes.size(), offset, msg_id);
    if (bytes.size() <= ch::kMaxInline) {
      ch::Pwrite pwrite{.offset = offset, .length = bytes.size(), .data = bytes};
      return send(pwrite, 0, msg_id);
    }
    uint64_t done = 0;
    while (done < bytes.size()) {
      auto staging = slots_->acquire(Deadline::after(timeout_));
      if (!staging) return done ? int64_t(done) : -ETIMEDOUT;
      Bytes piece = bytes.subspan(done, std::min<size_t>(bytes.size() - done, staging->bytes().size()));
      std::memcpy(staging->bytes().data(), piece.data(), piece.size());
      bool last = done + piece.size() == bytes.size();
      int64_t written =
          write_window(*slots_->offset_of(staging->bytes()), piece.size(), offset + done, last ? msg_id : std::nullopt);
      if (written < 0) return done && !last ? int64_t(done) : written;
      done += uint64_t(written);
      if (uint64_t(written) < piece.size()) break;
    }
    return int64_t(done);
  }

  int64_t write_window(uint64_t at, uint64_t length, uint64_t offset, std::optional<uint32_t> msg_id) {
    int64_t written =
        send({.offset = offset, .window_offset = at, .length = length, .window = kWindowId}, ch::kFromWindow, msg_id);
    if (written == -EPIPE) slots_->retire(at);
    return written;
  }

  // The server may still write from there.
  void retire(Bytes bytes) const {
    if (auto at = slots_->offset_of(bytes)) slots_->retire(*at);
  }

  ch::Head addressed(ch::Head head) const {
    head.address(number_);
    return head;
  }

  int64_t send(ch::Pwrite pwrite, uint16_t flags, std::optional<uint32_t> msg_id) {
    if (msg_id) {
      flags |= ch::kComplete;
      pwrite.msg_id = *msg_id;
    }
    FrameSocket::Call call(addressed(ch::encode_pwrite(0, pwrite, flags)), pwrite.data);
    frames_->call({&call, 1});
    if (msg_id && call.result == int64_t(pwrite.length) && call.completion < 0) return call.completion;
    return call.result;
  }

  const std::shared_ptr<FrameSocket> frames_;  // a lane is shared with its other handles
  const uint32_t number_;
  const std::shared_ptr<WindowSlots> slots_;  // shared with the control and its other handles
  const Duration timeout_;
  std::atomic<bool> proves_writes_{false};
};

class Connection final : public Control {
 public:
  Connection(Fd socket, std::shared_ptr<WindowSlots> slots, SocketControlOptions options)
      : options_(options),
        slots_(std::move(slots)),
        frames_(std::make_shared<FrameSocket>(
            std::move(socket),
            FrameSocket::Options{
                .longest = ch::kMaxFrame, .timeout = options.call_timeout, .delivery = [this](auto& frame, Fd passed) {
                  delivered(frame, std::move(passed));
                }})) {}

  Result<> begin(ch::Mode mode, Deadline deadline) {
    FrameSocket::Call hello(ch::encode_hello(0, {.mode = mode, .features = options_.lanes ? ch::kLanes : 0}));
    frames_->call({&hello, 1}, deadline);
    if (hello.result < 0) {
      bool late = hello.result == -EPIPE && deadline.passed();
      return fail_sys(late ? ETIMEDOUT : int(-hello.result), "control channel");
    }
    if (int64_t err = frames_->call(ch::encode_window(0, {kWindowId}), {}, slots_->memory()); err < 0)
      return fail_sys(int(-err), "control channel: window");
    return hello.features & ch::kLanes ? open_lanes() : Result<>();
  }

  Result<Request> next(Deadline deadline) override {
    HYDRANT_TRY(FrameSocket::Lock lock, wait_for_requests(deadline));
    Result<Request> request = std::move(inbox_.front());
    inbox_.pop_front();
    taken(std::move(lock), 1);
    return request;
  }

  Result<size_t> next_some(std::vector<Request>& out, size_t most, Deadline deadline) override {
    HYDRANT_TRY(FrameSocket::Lock lock, wait_for_requests(deadline));
    size_t count = 0;
    // What cannot be decoded is reported by itself, when it is the first.
    for (; count < most && !inbox_.empty() && inbox_.front(); ++count) {
      out.push_back(*std::move(inbox_.front()));
      inbox_.pop_front();
    }
    if (count > 0) return taken(std::move(lock), count), count;
    Error error = std::move(inbox_.front().error());
    inbox_.pop_front();
    taken(std::move(lock), 1);
    return tl::unexpected(std::move(error));
  }

  void fill_all(std::span<Fill> fills) override {
    std::vector<FrameSocket::Call> calls;
    std::vector<Fill*> called;
    std::vector<bool> done(fills.size());
    calls.reserve(fills.size());
    // Lane by lane: what goes over one goes together.
    for (size_t first = 0; first < fills.size(); ++first) {
      if (done[first]) continue;
      const auto& lane = static_cast<SocketHandle*>(fills[first].handle)->frames();
      calls.clear();
      called.clear();
      for (size_t i = first; i < fills.size(); ++i) {
        auto& handle = static_cast<SocketHandle&>(*fills[i].handle);
        if (done[i] || handle.frames() != lane) continue;
        auto call = handle.one_frame(fills[i]);
        if (!call) break;
        calls.push_back(std::move(*call));
        called.push_back(&fills[i]);
        done[i] = true;
      }
      if (calls.empty()) {
        fills[first].result =
            fills[first].handle->fill_and_complete(fills[first].bytes, fills[first].offset, fills[first].msg_id);
        continue;
      }
      lane->call(calls);
      for (size_t i = 0; i < calls.size(); ++i)
        called[i]->result = static_cast<SocketHandle*>(called[i]->handle)->result(calls[i], *called[i]);
    }
  }

  int64_t write(std::string_view command) override {
    if (command.size() > ch::kMaxInline) return -EOPNOTSUPP;  // as for every command of more than 4095 bytes
    return frames_->call(ch::encode_bytes(ch::Op::kWrite, 0, command.size()), as_bytes(command));
  }

  void stop() override {
    {
      auto lock = frames_->lock();
      stopped_ = true;
    }
    frames_->interrupt();
  }

 private:
  Result<> open_lanes() {
    frames_->join();
    for (unsigned i = 0; i < options_.lanes; ++i) {
      HYDRANT_TRY(auto pair, socket_pair(SocketType::kSeqPacket));
      // As for the control socket: what does not fit makes the sender wait. Best effort.
      int room = kSendBuffer;
      for (int end : {pair.first.get(), pair.second.get()})
        ::setsockopt(end, SOL_SOCKET, SO_SNDBUF, &room, sizeof room);
      int64_t err = frames_->call(ch::encode_lane(0), {}, pair.second.get());
      if (err < 0) return fail_sys(int(-err), "control channel: lane");
      // A lane that is lost has handles that nobody can use any more: the connection is as good as lost.
      lanes_.push_back(std::make_shared<FrameSocket>(
          std::move(pair.first), FrameSocket::Options{.longest = ch::kMaxFrame,
                                                      .timeout = options_.call_timeout,
                                                      .joined = true,
                                                      .on_lost = [control = std::weak_ptr(frames_)] {
                                                        if (auto frames = control.lock()) frames->shut();
                                                      }}));
    }
    return {};
  }

  bool give_credits(size_t count) {
    return frames_->post(
        ch::encode_read(FrameSocket::kDeliveryTag,
                        {.buffer_size = proto::kMessageBufferSize, .count = static_cast<uint32_t>(count)}, true));
  }

  // Holding the lock, with something in the inbox.
  Result<FrameSocket::Lock> wait_for_requests(Deadline deadline) {
    // Not before somebody asks: an OPEN that is delivered ahead of `restore` would be delivered twice, and fail.
    if (!reading_.exchange(true) && !give_credits(options_.credits)) return fail_sys(EPIPE, "control channel");
    auto lock = frames_->lock();
    frames_->wait(lock, deadline, [&] { return stopped_ || slots_->worn() || !inbox_.empty(); });
    if (stopped_) return fail(Code::kCancelled, "stopped");
    // A handle's answer did not come in time. A new connection brings a new window, and hydrantd drops the old one.
    if (slots_->worn()) return fail_sys(EPIPE, "control channel: a write was not answered");
    if (!inbox_.empty()) return lock;
    if (frames_->lost(lock)) return fail_sys(EPIPE, "control channel");
    lock.unlock();
    slots_->trim();  // idle: the memory is better used elsewhere
    return fail(Code::kTooSlow, "no request");
  }

  // Credits go back in batches: a frame for each would wake the server once more per request.
  void taken(FrameSocket::Lock lock, size_t count) {
    used_ += count;
    size_t again = used_ >= std::max(1u, options_.credits / 2) ? std::exchange(used_, 0) : 0;
    if (!inbox_.empty()) frames_->wake_taker(lock);
    lock.unlock();
    if (again) give_credits(again);
  }

  // Under the lock of frames_. At most options_.credits messages are ever in the inbox.
  void delivered(const ch::Frame& frame, Fd passed) {
    if (frame.header.op != ch::Op::kRead) return;
    if (frame.header.result < 0) {
      inbox_.push_back(fail_sys(int(-frame.header.result), "control read"));
      return;
    }
    inbox_.push_back(decode(frame.payload, std::move(passed)));
  }

  Result<Request> decode(Bytes payload, Fd passed) {
    HYDRANT_TRY(proto::Message message, proto::decode_message(payload));
    std::shared_ptr<ObjectHandle> handle;
    if (message.opcode == proto::Opcode::kOpen) {
      if (!passed && (lanes_.empty() || message.fd <= 0)) return fail(Code::kCorrupt, "OPEN without a handle");
      handle = passed ? own_socket(std::move(passed)) : on_lane(static_cast<uint32_t>(message.fd));
    }
    return request_of(std::move(message), std::move(handle));
  }

  std::shared_ptr<ObjectHandle> own_socket(Fd socket) {
    FrameSocket::Options options{.longest = kHandleAnswer, .timeout = options_.call_timeout};
    return std::make_shared<SocketHandle>(std::make_shared<FrameSocket>(std::move(socket), std::move(options)), 0,
                                          slots_, options_.call_timeout);
  }
  // A handle keeps to its lane, so its frames are done in their order.
  std::shared_ptr<ObjectHandle> on_lane(uint32_t number) {
    return std::make_shared<SocketHandle>(lanes_[number % lanes_.size()], number, slots_, options_.call_timeout);
  }

  const SocketControlOptions options_;
  const std::shared_ptr<WindowSlots> slots_;         // shared with handles, which may outlive us
  std::vector<std::shared_ptr<FrameSocket>> lanes_;  // as above; none with a server that has no lanes
  std::atomic<bool> reading_{false};

  // Guarded by the lock of frames_.
  std::deque<Result<Request>> inbox_;
  size_t used_ = 0;  // credits to be given again
  bool stopped_ = false;

  // Last: its deliveries use what stands above. Shared with lanes, which tell it that they are lost.
  const std::shared_ptr<FrameSocket> frames_;
};

Result<std::unique_ptr<Control>> connect(const std::string& path, Deadline deadline, SocketControlOptions options,
                                         ch::Mode mode) {
  bool sane = options.credits >= 1 && options.credits <= 512 && options.lanes <= ch::kMaxLanes &&
              options.slot_bytes % 4096 == 0 && options.slot_bytes >= (64 << 10) && options.slot_bytes <= (64 << 20) &&
              options.slots >= 1 && options.slots <= 64 && options.slot_bytes * options.slots <= ch::kMaxWindowSize;
  if (!sane) return fail(Code::kInvalid, "options of the control channel");
  HYDRANT_TRY(Fd socket, connect_unix(path, SocketType::kSeqPacket, deadline));
  HYDRANT_TRY(auto slots, WindowSlots::create(options.slot_bytes, options.slots));
  auto connection = std::make_unique<Connection>(std::move(socket), std::move(slots), options);
  if (auto begun = connection->begin(mode, deadline); !begun) return fail(std::move(begun.error()).in(path));
  return connection;
}

}  // namespace

Result<std::unique_ptr<Control>> SocketControl::attach(const std::string& path, Deadline deadline,
                                                       SocketControlOptions options) {
  return connect(path, deadline, options, ch::Mode::kAttach);
}

Result<std::unique_ptr<Control>> SocketControl::open(const std::string& path, Deadline deadline,
                                                     SocketControlOptions options) {
  return connect(path, deadline, options, ch::Mode::kOpen);
}

}  // namespace hydrant::fetch
