#include "cachefiles/ensure.h"

#include "cachefiles/cache.h"
#include "cachefiles/cookie.h"
#include "cachefiles/engine_impl.h"
#include "cachefiles/object.h"
#include "cachefiles/trace.h"

namespace hydrant::cachefiles {

using Kind = BackingFile::Survey::Kind;

namespace {

// The kernel wakes nobody for a request that goes away (E12); whoever shows its mask elsewhere must hear of it.
void withdraw(const RequestPtr& request) {
  auto cache = request->object->cache().shared_from_this();
  if (!cache->requests().remove(request)) return;
  request->complete(-EINTR);
  cache->wake();
}

}  // namespace

EnsureOp::EnsureOp(std::shared_ptr<CookieCore> cookie, ByteRange range, UniqueFunction<void(int)> done)
    : cookie_(std::move(cookie)), rest_(range), done_(std::move(done)) {
  cookie_->access_began();
}

EnsureOp::~EnsureOp() = default;

void EnsureOp::start(std::shared_ptr<Object> object) {
  {
    std::lock_guard lock(mutex_);
    if (finished_) return;  // cancelled while it waited for the lookup
    started_ = true;
    object_ = std::move(object);
  }
  if (!object_) return finish(-EIO);  // the lookup failed
  run(false);
}

// Each turn settles what the file has at rest_.begin. A hole is asked for once; if it is still there after a successful
// answer, the daemon did not supply it, or it was discarded meanwhile and is asked for again.
void EnsureOp::run(bool second_pass) {
  while (!rest_.empty()) {
    auto file = object_->file();
    if (!file) {
      trace_verdict("download", "no-file", 0, rest_.size());
      return finish(-EIO);
    }
    auto found = file->survey(rest_);
    const bool fresh = !second_pass || file->discards() != discards_;
    bool ask = found.kind == Kind::kHole && fresh && object_->cache().has(Cache::kOnDemand);
    trace_verdict(found.kind == Kind::kPresent ? "read"
                  : ask                        ? "ask"
                                               : "download",
                  found.reason, file->id().inode, found.size);
    switch (found.kind) {
      case Kind::kError: return finish(-EIO);
      case Kind::kPresent:
        rest_.begin += found.size;
        second_pass = false;
        continue;
      case Kind::kHole:
        if (object_->find(*file, {rest_.begin, rest_.begin + found.size})) continue;
        // Without a user daemon the verdict is "download", which is the consumer's business (spec 7.5).
        if (!ask) return finish(-EIO);
        discards_ = file->discards();
        return request({rest_.begin, rest_.begin + found.size});
    }
  }
  finish(0);
}

void EnsureOp::trace_verdict(const char* verdict, const char* reason, uint64_t inode, uint64_t size) const {
  trace::event(trace::Point::kPrepRead, {{"object", object_->debug_id()},
                                         {"inode", inode},
                                         {"verdict", verdict},
                                         {"reason", reason},
                                         {"start", rest_.begin},
                                         {"len", size}});
}

void EnsureOp::request(ByteRange hole) {
  auto object = object_;
  auto request = std::make_shared<Request>();
  request->opcode = Opcode::kRead;
  request->object = object;
  request->range = hole;
  request->done = [self = shared_from_this()](int result) {
    if (result == 0) return self->run(true);
    self->trace_verdict("invalid", "found-hole", 0, self->rest_.size());
    self->finish(result == -EINTR ? -EINTR : -EIO);
  };
  {
    std::lock_guard lock(mutex_);
    request_ = request;
  }
  cookie_->count_read();
  ++object->cache().engine().counters().reads;
  // From here on the answer may run on another thread, and end us.
  if (object->cache().send(request) != 0) {
    request->done = {};  // it holds us
    return finish(-EIO);
  }
  bool cancelled;
  {
    std::lock_guard lock(mutex_);
    cancelled = cancelled_;
  }
  if (cancelled) withdraw(request);
}

void EnsureOp::cancel() {
  RequestPtr request;
  {
    std::lock_guard lock(mutex_);
    if (finished_) return;
    cancelled_ = true;
    request = request_;
    if (started_ && !request) return;  // the runner sees the mark when it has queued its request
  }
  if (!request) return finish(-EINTR);
  withdraw(request);
}

bool EnsureOp::finished() const {
  std::lock_guard lock(mutex_);
  return finished_;
}

void EnsureOp::finish(int result) {
  // A wait that its consumer keeps afterwards holds nothing of the engine.
  UniqueFunction<void(int)> done;
  std::shared_ptr<CookieCore> cookie;
  std::shared_ptr<Object> object;
  {
    std::lock_guard lock(mutex_);
    if (finished_) return;
    finished_ = true;
    done = std::move(done_);
    cookie = std::move(cookie_);
    object = std::move(object_);
    request_.reset();
  }
  cookie->access_ended();
  done(result);
}

}  // namespace hydrant::cachefiles
