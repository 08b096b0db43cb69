#include "cachefiles/requests.h"

#include <cerrno>
#include <utility>

#include "base/check.h"
#include "cachefiles/object.h"

namespace hydrant::cachefiles {
namespace {

using State = OnDemand::State;

size_t message_size(const Request& request) {
  switch (request.opcode) {
    case Opcode::kOpen:
      return proto::open_message_size(request.object->volume_key().size(), request.object->key().size());
    case Opcode::kRead: return proto::kReadMessageSize;
    case Opcode::kClose: break;
  }
  return proto::kMessageHeaderSize;
}

}  // namespace

void fail_all(std::vector<RequestPtr> requests) {
  for (auto& request : requests) request->complete(-EIO);
}

int RequestTable::add(const RequestPtr& request) {
  std::lock_guard lock(mutex_);
  auto& info = request->object->ondemand;
  if (dead_ || info.state == State::kDropping) return -EIO;
  if (request->opcode == Opcode::kClose && info.state != State::kOpen) return -ENOENT;
  HYDRANT_CHECK(requests_.size() < UINT32_MAX, "memory ends before ids do");
  while (requests_.contains(next_id_)) ++next_id_;  // cyclic; runs of pending ids are as rare as wraps
  request->id = next_id_++;
  request->pending = true;
  if (request->reopen) info.reopen_pending = true;
  requests_.emplace(request->id, request);
  size_.store(requests_.size(), std::memory_order_relaxed);
  request->next = info.requests;
  if (info.requests) info.requests->previous = request.get();
  info.requests = request.get();
  arm(*request);
  return 0;
}

bool RequestTable::remove(const RequestPtr& request) {
  std::lock_guard lock(mutex_);
  if (!request->pending) return false;
  erase(*request);
  return true;
}

void RequestTable::erase(Request& request) {
  request.pending = false;
  request.fresh = false;
  deliverable_.erase(request.id);
  auto& first = request.object->ondemand.requests;
  (request.previous ? request.previous->next : first) = request.next;
  if (request.next) request.next->previous = request.previous;
  request.next = request.previous = nullptr;
  if (request.reopen) request.object->ondemand.reopen_pending = false;
  requests_.erase(request.id);
  size_.store(requests_.size(), std::memory_order_relaxed);
}

void RequestTable::arm(Request& request) {
  request.fresh = true;
  if (request.opcode != Opcode::kRead || request.object->ondemand.state != State::kReopening)
    deliverable_.insert(request.id);
}

void RequestTable::unblock(Object& object) {
  for (auto* request = object.ondemand.requests; request; request = request->next)
    if (request->fresh) deliverable_.insert(request->id);
}

RequestTable::Taken RequestTable::take(size_t buffer_size) {
  Taken out;
  std::lock_guard lock(mutex_);
  // Each pass of the loop delivers, or takes at least one id out of deliverable_, or ends.
  uint32_t from = cursor_;
  bool wrapped = false;
  for (;;) {
    auto at = deliverable_.lower_bound(from);
    if (at == deliverable_.end() || (wrapped && *at >= cursor_)) {
      if (wrapped || cursor_ == 0) return out;
      wrapped = true;
      from = 0;
      continue;
    }
    RequestPtr request = requests_.at(*at);
    auto& info = request->object->ondemand;
    if (request->opcode == Opcode::kRead && info.state != State::kOpen) {
      // CLOSE: the daemon gave its handle up; it gets a new one before it gets the READs.
      info.state = State::kReopening;
      for (auto* each = info.requests; each; each = each->next)
        if (each->opcode == Opcode::kRead) deliverable_.erase(each->id);
      if (info.reopen_pending)
        info.reopen_again = true;
      else
        out.reopen.push_back(request->object);
      from = request->id;
      continue;
    }
    size_t size = message_size(*request);
    if (size > buffer_size) {
      out.result = -EMSGSIZE;
      return out;
    }
    deliverable_.erase(at);
    request->fresh = false;
    cursor_ = request->id + 1;
    out.ids = {request->id, static_cast<uint32_t>(info.id)};
    out.result = static_cast<int64_t>(size);
    if (request->opcode == Opcode::kClose) erase(*request);
    out.request = std::move(request);
    return out;
  }
}

bool RequestTable::deliverable() const {
  std::lock_guard lock(mutex_);
  return !deliverable_.empty();
}

int32_t RequestTable::take_object_id() {
  if (object_ids_.size() >= INT32_MAX) return -1;
  while (object_ids_.contains(next_object_id_))
    next_object_id_ = next_object_id_ == INT32_MAX ? 1 : next_object_id_ + 1;
  return std::exchange(next_object_id_, next_object_id_ == INT32_MAX ? 1 : next_object_id_ + 1);
}

int64_t RequestTable::assign_id(Object& object) {
  std::lock_guard lock(mutex_);
  int32_t id = take_object_id();
  if (object.ondemand.id > 0) return -EEXIST;
  if (id < 0) return -EBUSY;
  object_ids_.insert(id);
  object.ondemand.id = id;
  return id;
}

void RequestTable::delivery_failed(Object& object) {
  std::lock_guard lock(mutex_);
  take_object_id();
  auto& info = object.ondemand;
  if (info.id > 0 || info.state == State::kDropping) return;
  info.state = State::kClose;
  unblock(object);
}

RequestPtr RequestTable::handle_closed(Object& object, int32_t id) {
  std::lock_guard lock(mutex_);
  auto& info = object.ondemand;
  object_ids_.erase(id);
  if (info.id != id) return nullptr;
  info.id = -1;
  if (info.state != State::kDropping) {
    info.state = State::kClose;
    unblock(object);
  }
  for (auto* each = info.requests; each; each = each->next) {
    if (each->opcode != Opcode::kClose) continue;
    RequestPtr request = requests_.at(each->id);
    erase(*request);
    return request;
  }
  return nullptr;
}

std::vector<RequestPtr> RequestTable::take_fresh_reads(Object& object) {
  std::vector<RequestPtr> out;
  for (auto* each = object.ondemand.requests; each; each = each->next)
    if (each->opcode == Opcode::kRead && each->fresh) out.push_back(requests_.at(each->id));
  for (auto& request : out) erase(*request);
  return out;
}

RequestTable::Answer RequestTable::answer_open(uint64_t id, int64_t size, int parse_error,
                                               UniqueFunction<int(const Request&, uint64_t)> take_size) {
  Answer out;
  std::lock_guard lock(mutex_);
  auto found = id <= UINT32_MAX ? requests_.find(static_cast<uint32_t>(id)) : requests_.end();
  if (found == requests_.end() || found->second->opcode != Opcode::kOpen || found->second->object->ondemand.id == 0) {
    out.result = -EINVAL;
    return out;
  }
  out.request = found->second;
  Object& object = *out.request->object;
  auto& info = object.ondemand;
  erase(*out.request);
  if (parse_error) {
    out.result = out.completion = parse_error;
  } else if (size < -4095) {
    out.result = out.completion = -EINVAL;
  } else if (size < 0) {
    out.completion = static_cast<int>(size);
  } else if (info.id == -1) {
    out.completion = -EBADFD;
  } else if (int refused = take_size(*out.request, static_cast<uint64_t>(size))) {
    out.completion = refused;
  } else {
    info.state = State::kOpen;
    unblock(object);
    out.opened = true;
  }
  if (info.id == -1) {
    info.state = State::kClose;
    unblock(object);
  }
  return out;
}

RequestPtr RequestTable::answer_read(uint32_t id, const Object& object) {
  std::lock_guard lock(mutex_);
  return take_read(id, object);
}

RequestPtr RequestTable::take_read(uint32_t id, const Object& object) {
  auto found = requests_.find(id);
  if (found == requests_.end() || found->second->opcode != Opcode::kRead || found->second->object.get() != &object)
    return nullptr;
  RequestPtr request = found->second;
  erase(*request);
  return request;
}

std::vector<RequestPtr> RequestTable::reopen_finished(Object& object, int result, bool* again) {
  std::lock_guard lock(mutex_);
  auto& info = object.ondemand;
  *again = false;
  bool wanted = std::exchange(info.reopen_again, false);
  if (result == 0 || info.state == State::kDropping || dead_) return {};
  std::vector<RequestPtr> refused;
  if (info.state == State::kReopening && wanted && info.id == -1) {
    *again = true;
    return {};
  }
  if (info.state != State::kReopening) return {};
  // Its daemon has a handle and said no (or kept an older one): readers get an error instead of a wait without end
  // (E6).
  if (info.id > 0) refused = take_fresh_reads(object);
  info.state = State::kClose;
  unblock(object);
  return refused;
}

bool RequestTable::object_open(const Object& object) const {
  std::lock_guard lock(mutex_);
  return object.ondemand.state == State::kOpen;
}

bool RequestTable::id_is_zero(const Object& object) const {
  std::lock_guard lock(mutex_);
  return object.ondemand.id == 0;
}

void RequestTable::open_failed(Object& object) {
  std::lock_guard lock(mutex_);
  auto& info = object.ondemand;
  if (info.state == State::kDropping) return;
  info.state = State::kClose;
  unblock(object);
}

void RequestTable::restore() {
  std::lock_guard lock(mutex_);
  for (auto& [id, request] : requests_) arm(*request);
}

std::vector<RequestPtr> RequestTable::flush() {
  std::lock_guard lock(mutex_);
  dead_ = true;
  std::vector<RequestPtr> out;
  out.reserve(requests_.size());
  for (auto& [id, request] : requests_) out.push_back(request);
  for (auto& request : out) erase(*request);
  object_ids_.clear();
  return out;
}

std::vector<RequestPtr> RequestTable::drop(Object& object) {
  std::lock_guard lock(mutex_);
  object.ondemand.state = State::kDropping;
  std::vector<RequestPtr> out;
  for (auto* each = object.ondemand.requests; each; each = each->next) out.push_back(requests_.at(each->id));
  for (auto& request : out) erase(*request);
  return out;
}

}  // namespace hydrant::cachefiles
