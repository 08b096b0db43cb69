// Lanes: frames for many handles on one socket, many of them in a message.
#include <cerrno>

#include "daemon/handle_server.h"

namespace hydrant::daemon {
namespace ch = proto::channel;

uint32_t NumberedHandles::reserve() {
  std::lock_guard lock(mutex_);
  while (next_ == 0 || next_ > INT32_MAX || handles_.contains(next_)) next_ = next_ > INT32_MAX ? 1 : next_ + 1;
  return next_++;
}

void NumberedHandles::add(uint32_t number, std::shared_ptr<cachefiles::Handle> handle) {
  std::lock_guard lock(mutex_);
  handles_.emplace(number, std::move(handle));
  count_->fetch_add(1, std::memory_order_relaxed);
}

std::shared_ptr<cachefiles::Handle> NumberedHandles::find(uint32_t number) const {
  std::lock_guard lock(mutex_);
  auto found = handles_.find(number);
  return found == handles_.end() ? nullptr : found->second;
}

bool NumberedHandles::drop(uint32_t number) {
  std::unique_lock lock(mutex_);
  auto dropped = handles_.extract(number);
  lock.unlock();
  if (dropped.empty()) return false;
  dropped.mapped().reset();  // before it is counted: who sees the count sees the close
  count_->fetch_sub(1, std::memory_order_relaxed);
  return true;
}

void NumberedHandles::clear() {
  decltype(handles_) dropped;
  {
    std::lock_guard lock(mutex_);
    dropped.swap(handles_);
  }
  size_t count = dropped.size();
  dropped.clear();
  count_->fetch_sub(count, std::memory_order_relaxed);
}

namespace {

// Frames of one message, in their order. Neighbouring PWRITEs of a handle are performed together, so that the engine
// can write and complete them in one go.
class Turn {
 public:
  Turn(NumberedHandles& handles, const Windows& windows, std::vector<cachefiles::Handle::Fill>& fills)
      : handles_(handles), windows_(windows), fills_(fills) {}

  // False: its payload is malformed.
  bool pwrite(const ch::Header& header, uint32_t number, const ch::Frame& frame) {
    auto pwrite = ch::decode_pwrite(frame);
    if (!pwrite) return false;
    if (!use(number)) {
      answer(header, -EBADF, header.flags & ch::kComplete);
      return true;
    }
    cachefiles::Handle::Fill fill{.bytes = pwrite->data, .offset = pwrite->offset};
    if (header.flags & ch::kComplete) fill.msg_id = pwrite->msg_id;
    if (header.flags & ch::kFromWindow) {
      auto [window, bytes] = windows_.find(*pwrite);
      if (!window) {
        finish();
        answer(header, -EFAULT, header.flags & ch::kComplete);
        return true;
      }
      fill.bytes = bytes;
      mappings_.push_back(std::move(window));
    }
    fills_.push_back(fill);
    headers_.push_back(header);
    return true;
  }
  // Performs what was collected.
  void finish() {
    if (fills_.empty()) return;
    handle_->fill(fills_);
    for (size_t i = 0; i < fills_.size(); ++i) {
      bool completes = headers_[i].flags & ch::kComplete;
      if (!(headers_[i].flags & ch::kNoAnswer))
        append(completes ? ch::encode_completion(headers_[i].tag, fills_[i].written, fills_[i].completion)
                         : ch::encode_answer(ch::Op::kPwrite, headers_[i].tag, fills_[i].written));
    }
    fills_.clear();
    headers_.clear();
    mappings_.clear();
  }
  cachefiles::Handle* use(uint32_t number) {
    if (!handle_ || number != number_) {
      finish();
      number_ = number;
      handle_ = handles_.find(number);
    }
    return handle_.get();
  }
  void forget() {
    finish();
    handle_.reset();
  }
  void append(const ch::Head& head) { hydrant::append(answers_, head.bytes()); }
  void answer(const ch::Header& header, int64_t result, bool completes = false) {
    if (header.flags & ch::kNoAnswer && header.op == ch::Op::kPwrite) return;
    append(completes ? ch::encode_completion(header.tag, result, -ECANCELED)
                     : ch::encode_answer(header.op, header.tag, result));
  }
  Buffer& answers() { return answers_; }

 private:
  NumberedHandles& handles_;
  const Windows& windows_;
  uint32_t number_ = 0;
  std::shared_ptr<cachefiles::Handle> handle_;  // shared with the table: a drop on another lane does not end it here
  std::vector<cachefiles::Handle::Fill>& fills_;
  std::vector<ch::Header> headers_;                             // of the fills
  std::vector<std::shared_ptr<const WindowMapping>> mappings_;  // that the fills stand in
  Buffer answers_;
};

}  // namespace

std::optional<CloseReason> HandleServer::serve_lane(Lane& lane, Connection& connection, Bytes message) {
  Turn turn(*connection.handles, *connection.windows, lane.fills);
  std::optional<CloseReason> refused;
  while (!message.empty() && !refused) {
    auto frame = ch::take_frame(message);
    if (!frame || frame->header.result < 0 || frame->header.result > UINT32_MAX) {
      refused = CloseReason::kMalformed;
      break;
    }
    auto number = static_cast<uint32_t>(std::exchange(frame->header.result, 0));
    const ch::Header& header = frame->header;
    if (header.op == ch::Op::kPwrite) {
      if (!turn.pwrite(header, number, *frame)) refused = CloseReason::kMalformed;
    } else if (header.op == ch::Op::kDrop) {
      turn.forget();
      if (!ch::decode_empty(*frame))
        refused = CloseReason::kMalformed;
      else if (connection.handles->drop(number) && dropped_)
        dropped_();
    } else if (auto* handle = turn.use(number)) {
      turn.finish();
      auto performed = perform(*handle, *connection.windows, *frame);
      if (!performed)
        refused = performed.error();
      else if (*performed)
        turn.append(**performed);
    } else {
      turn.answer(header, -EBADF);
    }
  }
  turn.finish();  // what came before a bad frame was sent in good faith
  if (refused || turn.answers().empty()) return refused;
  // No answer is longer than its frame: all of them fit into one message.
  return answer(lane, connection, turn.answers());
}

}  // namespace hydrant::daemon
