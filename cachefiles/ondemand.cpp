// The on-demand protocol on the control channel: delivery, answers, poll (spec 2.4, 2.6, 3.6, 5, 6).
#include <sys/epoll.h>

#include <array>

#include "base/check.h"
#include "base/log.h"
#include "cachefiles/cache.h"
#include "cachefiles/commands.h"
#include "cachefiles/cookie.h"
#include "cachefiles/handle.h"
#include "cachefiles/object.h"
#include "cachefiles/trace.h"

namespace hydrant::cachefiles {

int Cache::send(const RequestPtr& request) {
  if (has(kDead)) return -EIO;
  int err = requests_.add(request);
  if (!err) wake();
  return err;
}

int64_t Cache::read(size_t buffer_size, Receiver& receiver) {
  if (!has(kReady)) return 0;
  if (!has(kOnDemand)) return read_state(buffer_size, receiver);
  if (has(kDead)) return 0;
  auto taken = requests_.take(buffer_size);
  for (auto& object : taken.reopen) object->reopen();
  if (!taken.request) return taken.result;

  Request& request = *taken.request;
  if (request.opcode == Opcode::kOpen) {
    int64_t result = deliver_open(taken, receiver);
    if (result < 0 && requests_.remove(taken.request)) request.complete(static_cast<int>(result));
    return result;
  }
  auto message =
      request.opcode == Opcode::kClose ? proto::encode_close(taken.ids) : proto::encode_read(taken.ids, request.range);
  if (request.opcode == Opcode::kRead)
    trace::event(trace::Point::kOnDemandRead, {{"object", request.object->debug_id()},
                                               {"msg_id", taken.ids.msg_id},
                                               {"object_id", taken.ids.object_id},
                                               {"start", request.range.begin},
                                               {"len", request.range.size()}});
  bool copied = receiver.deliver(message.bytes(), nullptr, -1);
  if (request.opcode == Opcode::kClose)  // it left the table when it was taken
    request.complete(copied ? 0 : -EFAULT);
  else if (!copied && requests_.remove(taken.request))
    request.complete(-EFAULT);
  return copied ? taken.result : -EFAULT;
}

int64_t Cache::deliver_open(RequestTable::Taken& taken, Receiver& receiver) {
  auto& object = taken.request->object;
  int fd = receiver.reserve_fd();
  if (fd < 0) {
    requests_.delivery_failed(*object);
    return fd;
  }
  int64_t id = requests_.assign_id(*object);
  if (id < 0) {
    receiver.release_fd(fd);
    if (id != -EEXIST) requests_.open_failed(*object);
    return id;
  }
  auto handle = std::make_shared<HandleImpl>(object, static_cast<int32_t>(id));
  taken.ids.object_id = static_cast<uint32_t>(id);
  trace::event(trace::Point::kOpen, {{"object", object->debug_id()},
                                     {"name", object->name()},
                                     {"msg_id", taken.ids.msg_id},
                                     {"object_id", id},
                                     {"fd", fd},
                                     {"flags", 0}});
  auto message = proto::encode_open(taken.ids, object->volume_key(), object->key(), fd);
  if (receiver.deliver(message.bytes(), std::move(handle), fd)) return taken.result;
  receiver.release_fd(fd);
  return -EFAULT;
}

unsigned Cache::poll() const {
  unsigned mask = has(kCulling) ? unsigned{EPOLLOUT} : 0;
  if (has(kOnDemand) ? !has(kDead) && requests_.deliverable() : has(kStateChanged)) mask |= EPOLLIN;
  return mask;
}

int Cache::copen(std::string_view arguments) {
  if (!has(kOnDemand)) return -EOPNOTSUPP;
  size_t comma = arguments.find(',');
  if (comma == arguments.npos) return -EINVAL;
  uint64_t id = 0;
  if (int err = parse_unsigned(arguments.substr(0, comma), &id)) return err;
  int64_t size = 0;
  int parse_error = parse_signed(arguments.substr(comma + 1), &size);
  auto answer = requests_.answer_open(id, size, parse_error, [](const Request& open, uint64_t value) {
    CookieCore& cookie = open.object->cookie();
    // A live object's label, map and readers go by the size it has: another one would be another object. The kernel
    // takes it, and so does its way of telling what is present (E13).
    if (open.reopen && value != cookie.size() && open.object->cache().presence() == Presence::kContentMap)
      return -ESTALE;
    cookie.set_size(value);
    return 0;
  });
  if (answer.request) {
    trace::event(trace::Point::kCopen,
                 {{"object", answer.request->object->debug_id()}, {"msg_id", id}, {"size", size}});
    answer.request->complete(answer.completion);
  }
  if (answer.opened) wake();
  return answer.result;
}

int Cache::restore() {
  if (!has(kOnDemand)) return -EOPNOTSUPP;
  requests_.restore();
  wake();
  return 0;
}

int Cache::read_complete(const Object& object, uint32_t id) {
  if (!has(kOnDemand)) return -EOPNOTSUPP;
  auto request = requests_.answer_read(id, object);
  if (!request) return -EINVAL;
  trace::event(trace::Point::kCread, {{"object", object.debug_id()}, {"msg_id", id}});
  request->complete(0);
  return 0;
}

void Cache::read_complete(const Object& object, std::span<Handle::Fill> fills) {
  std::array<RequestPtr, 64> completed;
  HYDRANT_CHECK(fills.size() <= completed.size(), "fills are completed in the portions that they are written in");
  requests_.answer_reads(
      fills.size(), object,
      [&](size_t i) {
        bool whole = fills[i].written == static_cast<int64_t>(fills[i].bytes.size());
        return whole ? fills[i].msg_id : std::nullopt;
      },
      [&](size_t i, RequestPtr request) {
        fills[i].completion = !has(kOnDemand) ? -EOPNOTSUPP : request ? 0 : -EINVAL;
        completed[i] = std::move(request);
      });
  for (size_t i = 0; i < fills.size(); ++i) {
    if (!completed[i]) continue;
    trace::event(trace::Point::kCread, {{"object", object.debug_id()}, {"msg_id", *fills[i].msg_id}});
    completed[i]->complete(0);
  }
}

void Cache::on_wake(UniqueFunction<void()> callback) {
  auto next = callback ? std::make_shared<UniqueFunction<void()>>(std::move(callback)) : nullptr;
  std::lock_guard lock(wake_mutex_);
  wake_.swap(next);
}

void Cache::wake() {
  std::shared_ptr<UniqueFunction<void()>> callback;
  {
    std::lock_guard lock(wake_mutex_);
    callback = wake_;
  }
  if (callback) (*callback)();
}

}  // namespace hydrant::cachefiles
