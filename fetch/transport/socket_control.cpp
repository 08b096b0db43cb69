#include "fetch/transport/socket_control.h"

#include <algorithm>
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

constexpr uint64_t kHelloTag = 0;
constexpr uint32_t kWindowId = 0;
// Answers on a handle are a header and at most one number.
constexpr size_t kHandleAnswer = 128;
constexpr size_t kControlAnswer = ch::kHeaderSize + 40 + proto::kMessageBufferSize;

class SocketHandle final : public ObjectHandle {
 public:
  SocketHandle(Fd socket, std::shared_ptr<WindowSlots> slots, Duration timeout)
      : frames_(std::move(socket), kHandleAnswer, timeout), slots_(std::move(slots)), timeout_(timeout) {}

  int64_t pwrite(Bytes bytes, uint64_t offset) override { return write(bytes, offset, std::nullopt); }

  int64_t complete(uint32_t msg_id) override {
    uint64_t tag = frames_.new_tag();
    return frames_.call(tag, ch::encode_ioctl(tag, {.argument = msg_id, .number = proto::kReadComplete})).result;
  }

  int64_t fill_and_complete(Bytes bytes, uint64_t offset, uint32_t msg_id) override {
    return write(bytes, offset, msg_id);
  }

  int64_t lseek(int64_t offset, int whence) override {
    uint64_t tag = frames_.new_tag();
    return frames_.call(tag, ch::encode_lseek(tag, {.offset = offset, .whence = whence})).result;
  }

  std::optional<Staging> stage(size_t size) override {
    if (size > slots_->slot_bytes()) return std::nullopt;
    auto staging = slots_->acquire(Deadline(Instant::min()));
    return staging ? std::optional(*std::move(staging)) : std::nullopt;
  }

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

  int64_t send(ch::Pwrite pwrite, uint16_t flags, std::optional<uint32_t> msg_id) {
    if (msg_id) {
      flags |= ch::kComplete;
      pwrite.msg_id = *msg_id;
    }
    uint64_t tag = frames_.new_tag();
    auto answer = frames_.call(tag, ch::encode_pwrite(tag, pwrite, flags), pwrite.data);
    if (msg_id && answer.result == int64_t(pwrite.length) && answer.completion < 0) return answer.completion;
    return answer.result;
  }

  FrameSocket frames_;
  const std::shared_ptr<WindowSlots> slots_;  // shared with the control and its other handles
  const Duration timeout_;
};

class Connection final : public Control {
 public:
  Connection(Fd socket, std::shared_ptr<WindowSlots> slots, SocketControlOptions options)
      : options_(options),
        slots_(std::move(slots)),
        frames_(std::move(socket), kControlAnswer, options.call_timeout,
                [this](const ch::Frame& frame, Fd passed) { delivered(frame, std::move(passed)); }) {}

  Result<> begin(ch::Mode mode, Deadline deadline) {
    auto hello = frames_.call(kHelloTag, ch::encode_hello(kHelloTag, {.mode = mode}), {}, -1, deadline);
    if (hello.result < 0) {
      bool late = hello.result == -EPIPE && deadline.passed();
      return fail_sys(late ? ETIMEDOUT : int(-hello.result), "control channel");
    }
    uint64_t tag = frames_.new_tag();
    auto window = frames_.call(tag, ch::encode_window(tag, {kWindowId}), {}, slots_->memory());
    if (window.result < 0) return fail_sys(int(-window.result), "control channel: window");
    credit_tag_ = frames_.new_tag();
    return {};
  }

  Result<Request> next(Deadline deadline) override {
    // Not before somebody asks: an OPEN that is delivered ahead of `restore` would be delivered twice, and fail.
    if (!std::exchange(reading_, true) && !give_credits(options_.credits)) return fail_sys(EPIPE, "control channel");
    auto lock = frames_.lock();
    frames_.wait(lock, deadline, [&] { return stopped_ || slots_->worn() || !inbox_.empty(); });
    if (stopped_) return fail(Code::kCancelled, "stopped");
    // A handle's answer did not come in time. A new connection brings a new window, and hydrantd drops the old one.
    if (slots_->worn()) return fail_sys(EPIPE, "control channel: a write was not answered");
    if (inbox_.empty()) {
      if (frames_.lost(lock)) return fail_sys(EPIPE, "control channel");
      lock.unlock();
      slots_->trim();  // idle: the memory is better used elsewhere
      return fail(Code::kTooSlow, "no request");
    }
    Result<Request> request = std::move(inbox_.front());
    inbox_.pop_front();
    // Credits go back in batches: a frame for each would wake the server once more per request.
    unsigned again = ++used_ >= std::max(1u, options_.credits / 2) ? std::exchange(used_, 0) : 0;
    lock.unlock();
    if (again) give_credits(again);
    return request;
  }

  int64_t write(std::string_view command) override {
    if (command.size() > ch::kMaxInline) return -EOPNOTSUPP;  // as for every command of more than 4095 bytes
    uint64_t tag = frames_.new_tag();
    return frames_.call(tag, ch::encode_bytes(ch::Op::kWrite, tag, command.size()), as_bytes(command)).result;
  }

  void stop() override {
    {
      auto lock = frames_.lock();
      stopped_ = true;
    }
    frames_.interrupt();
  }

 private:
  bool give_credits(unsigned count) {
    return frames_.post(ch::encode_read(credit_tag_, {.buffer_size = proto::kMessageBufferSize, .count = count}, true));
  }

  // Under the lock of frames_. At most options_.credits messages are ever in the inbox.
  void delivered(const ch::Frame& frame, Fd passed) {
    if (frame.header.op != ch::Op::kRead || frame.header.tag != credit_tag_) return;
    if (frame.header.result < 0) {
      inbox_.push_back(fail_sys(int(-frame.header.result), "control read"));
      return;
    }
    inbox_.push_back(decode(frame.payload, std::move(passed)));
  }

  Result<Request> decode(Bytes payload, Fd passed) {
    HYDRANT_TRY(proto::Message message, proto::decode_message(payload));
    switch (message.opcode) {
      case proto::Opcode::kOpen:
        if (!passed) return fail(Code::kCorrupt, "OPEN without a handle");
        return OpenRequest{message.msg_id, message.object_id, std::move(message.volume_key),
                           std::string(as_text(message.cookie_key)),
                           std::make_shared<SocketHandle>(std::move(passed), slots_, options_.call_timeout)};
      case proto::Opcode::kRead: return ReadRequest{message.msg_id, message.object_id, message.range};
      case proto::Opcode::kClose: return CloseRequest{message.msg_id, message.object_id};
    }
    return fail(Code::kCorrupt, "unknown request");
  }

  const SocketControlOptions options_;
  const std::shared_ptr<WindowSlots> slots_;  // shared with handles, which may outlive us
  uint64_t credit_tag_ = 0;
  bool reading_ = false;  // whose caller is one thread

  // Guarded by the lock of frames_.
  std::deque<Result<Request>> inbox_;
  unsigned used_ = 0;  // credits to be given again
  bool stopped_ = false;

  FrameSocket frames_;  // last: its deliveries use what stands above
};

Result<std::unique_ptr<Control>> connect(const std::string& path, Deadline deadline, SocketControlOptions options,
                                         ch::Mode mode) {
  bool sane = options.credits >= 1 && options.credits <= 512 && options.slot_bytes % 4096 == 0 &&
              options.slot_bytes >= (64 << 10) && options.slot_bytes <= (64 << 20) && options.slots >= 1 &&
              options.slots <= 64 && options.slot_bytes * options.slots <= ch::kMaxWindowSize;
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
