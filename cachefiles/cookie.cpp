#include "cachefiles/cookie.h"

#include <fcntl.h>

#include "base/log.h"
#include "cachefiles/cache.h"
#include "cachefiles/engine_impl.h"
#include "cachefiles/ensure.h"
#include "cachefiles/object.h"
#include "cachefiles/trace.h"
#include "proto/cachefiles_name.h"
#include "proto/leaf_table.h"

namespace hydrant::cachefiles {

namespace {

// Who came first is called first.
template <class List>
List take(List& list) {
  list.reverse();
  return std::exchange(list, {});
}

}  // namespace

size_t CookieSet::Hash::operator()(const CookieCore* cookie) const noexcept { return (*this)(cookie->key()); }
bool CookieSet::Equal::operator()(const CookieCore* a, const CookieCore* b) const noexcept {
  return (*this)(a->key(), b);
}
bool CookieSet::Equal::operator()(Bytes a, const CookieCore* b) const noexcept {
  return as_text(a) == as_text(b->key());
}

std::shared_ptr<CookieCore> CookieSet::find(Bytes key) const {
  auto found = cookies_.find(key);
  return found == cookies_.end() ? nullptr : (*found)->weak_from_this().lock();
}

void CookieSet::insert(CookieCore& cookie) {
  if (auto found = cookies_.find(cookie.key()); found != cookies_.end()) cookies_.erase(found);
  cookies_.insert(&cookie);
}

void CookieSet::erase(CookieCore& cookie) {
  auto found = cookies_.find(cookie.key());
  if (found != cookies_.end() && *found == &cookie) cookies_.erase(found);
}

VolumeCore::~VolumeCore() { engine_.volume_gone(key_); }

CookieCore::CookieCore(EngineImpl& engine, std::shared_ptr<VolumeCore> volume, Buffer key, CookieOptions options,
                       std::shared_ptr<CookieCore> predecessor)
    : engine_(engine),
      volume_(std::move(volume)),
      key_(std::move(key)),
      aux_(std::move(options.aux)),
      size_(options.size),
      advice_(options.advice),
      predecessor_(std::move(predecessor)) {}

void CookieCore::use(UniqueFunction<void(int)> ready) {
  Lock lock(mutex_);
  if (relinquished_) {
    lock.unlock();
    return ready(-ENOBUFS);
  }
  ++uses_;
  if (runs_on_data()) {
    lock.unlock();
    return ready(0);
  }
  waiters_.push_front(std::move(ready));
  if (state_ != State::kQuiescent) return;  // the lookup, or the withdrawal before it, goes on to serve us
  state_ = State::kLookingUp;
  lock.unlock();
  start_lookup();
}

void CookieCore::unuse() {
  Lock lock(mutex_);
  if (uses_ == 0 || --uses_ > 0 || state_ != State::kActive) return;
  lock.unlock();
  engine_.cookie_idle(weak_from_this());
}

void CookieCore::start_lookup() {
  std::shared_ptr<CookieCore> predecessor;
  {
    Lock lock(mutex_);
    predecessor = std::move(predecessor_);
  }
  auto run = [self = shared_from_this()] { self->engine_.submit([self] { self->run_lookup(); }); };
  if (predecessor)
    predecessor->when_dropped(run);
  else
    run();
}

void CookieCore::run_lookup() {
  auto cache = engine_.cache();
  auto pass = cache && cache->live() ? cache->lookups().enter() : std::nullopt;
  if (!pass) return lookup_done(nullptr, cache && cache->has(Cache::kDead) ? -EIO : -ENOBUFS);
  if (!proto::object_name(key_)) {
    log::warn("cachefiles.key_has_no_name", {{"volume", volume_->key()}, {"key_size", key_.size()}});
    return lookup_done(nullptr, -ENOBUFS);
  }
  auto volume = cache->obtain_volume(volume_->key(), volume_->coherency());
  if (!volume) return lookup_done(nullptr, -ENOBUFS);
  auto fanout = static_cast<uint8_t>(proto::hash_cookie(volume->hash(), key_));
  auto object = std::make_shared<Object>(cache, shared_from_this(), std::move(volume), fanout);
  {
    Lock lock(mutex_);
    object_ = object;
    if (relinquished_) object->drop();
  }
  cache->add_object(object);
  object->look_up(std::move(*pass),
                  [self = shared_from_this(), object](int result) { self->lookup_done(object, result); });
}

void CookieCore::lookup_done(const std::shared_ptr<Object>& object, int result) {
  Lock lock(mutex_);
  auto waiters = take(waiters_);
  bool invalidate = std::exchange(invalidate_wanted_, false);
  // The proof may have come after the object looked for one.
  if (result == 0 && proof_) result = object->prove(*proof_);
  if (result == 0 && !relinquished_ && invalidate) {
    state_ = State::kInvalidating;
    return start_invalidation(std::move(lock), std::move(waiters));
  }
  if (result == 0 && !relinquished_) {
    state_ = State::kActive;
    bool idle = uses_ == 0;
    lock.unlock();
    if (idle) engine_.cookie_idle(weak_from_this());
    for (auto& ready : waiters) ready(0);
    return;
  }
  if (!object) {
    state_ = State::kFailed;
    lock.unlock();
    withdrawn();
  } else {
    begin_withdrawal(std::move(lock), result ? State::kFailed : State::kRelinquishing);
  }
  int reported = object && object->cache().has(Cache::kDead) ? -EIO : result == -EIO && !object ? -EIO : -ENOBUFS;
  for (auto& ready : waiters) ready(reported);
}

void CookieCore::set_creating() {
  Lock lock(mutex_);
  if (state_ == State::kLookingUp) state_ = State::kCreating;
}

void CookieCore::publish(std::shared_ptr<BackingFile> file) { slot_.replace(std::move(file)); }

void CookieCore::begin_withdrawal(Lock lock, State state) {
  // Reads that waited for an invalidation; a lookup has taken its own before.
  auto waiters = state_ == State::kInvalidating ? take(waiters_) : Waiters{};
  state_ = state;
  auto object = object_;
  lock.unlock();
  for (auto& ready : waiters) ready(-ENOBUFS);
  object->withdraw([self = shared_from_this()] { self->withdrawn(); });
}

void CookieCore::withdrawn() {
  Lock lock(mutex_);
  object_.reset();
  if (relinquished_) return finish_drop(std::move(lock));
  withdraw_wanted_ = false;
  bool again = !waiters_.empty();
  state_ = again ? State::kLookingUp : State::kQuiescent;
  lock.unlock();
  if (again) start_lookup();
}

void CookieCore::finish_drop(Lock lock) {
  state_ = State::kDropped;
  auto tasks = take(when_dropped_);
  auto waiters = take(waiters_);
  lock.unlock();
  for (auto& ready : waiters) ready(-ENOBUFS);
  engine_.cookie_dropped(*this);
  for (auto& task : tasks) task();
}

void CookieCore::when_dropped(UniqueFunction<void()> task) {
  Lock lock(mutex_);
  if (state_ != State::kDropped) {
    when_dropped_.push_front(std::move(task));
    return;
  }
  lock.unlock();
  task();
}

void CookieCore::relinquish(bool retire, UniqueFunction<void()> done) {
  if (done) when_dropped(std::move(done));
  Lock lock(mutex_);
  if (relinquished_.exchange(true)) return;
  ++(retire ? engine_.counters().retires : engine_.counters().relinquishes);
  if (retire) retire_.store(true);
  engine_.cookie_relinquished();
  switch (state_) {
    case State::kQuiescent: return finish_drop(std::move(lock));
    case State::kActive: return begin_withdrawal(std::move(lock), State::kRelinquishing);
    case State::kLookingUp:
    case State::kCreating: {
      // Do not wait for a daemon that may never answer: its OPEN fails, and with it the lookup.
      auto object = object_;
      lock.unlock();
      if (object) object->drop();
      return;
    }
    default: return;  // whoever works on the cookie sees that it is relinquished
  }
}

void CookieCore::withdraw_from_cache(const std::shared_ptr<Object>& object) {
  Lock lock(mutex_);
  if (object_ != object) return;
  if (state_ == State::kActive) return begin_withdrawal(std::move(lock), State::kWithdrawing);
  if (state_ == State::kInvalidating) withdraw_wanted_ = true;
}

void CookieCore::discard_if_idle() {
  Lock lock(mutex_);
  if (uses_ > 0 || state_ != State::kActive) return;
  if (accesses_.load() > 0) {
    lock.unlock();
    ++engine_.counters().lru_postponed;
    return engine_.cookie_idle(weak_from_this());
  }
  ++engine_.counters().lru_discards;
  begin_withdrawal(std::move(lock), State::kDiscarding);
}

void CookieCore::invalidate() {
  ++engine_.counters().invalidations;
  Lock lock(mutex_);
  // The lookup may have found the old file already: it becomes active and is invalidated before anybody reads it.
  if (state_ == State::kLookingUp || state_ == State::kCreating) invalidate_wanted_ = true;
  if (state_ != State::kActive) return;
  state_ = State::kInvalidating;
  start_invalidation(std::move(lock), {});
}

void CookieCore::start_invalidation(Lock lock, Waiters waiters) {
  auto object = object_;
  lock.unlock();
  // From here on nobody finds the old bytes, and whoever is reading them finds out.
  invalidations_.fetch_add(1);
  publish(nullptr);
  engine_.submit([self = shared_from_this(), object, waiters = std::move(waiters)]() mutable {
    int result = object->invalidate();
    self->invalidated(result);
    for (auto& ready : waiters) ready(result == 0 ? 0 : -ENOBUFS);
  });
}

void CookieCore::invalidated(int result) {
  Lock lock(mutex_);
  if (relinquished_) return begin_withdrawal(std::move(lock), State::kRelinquishing);
  if (result != 0) return begin_withdrawal(std::move(lock), State::kFailed);
  if (withdraw_wanted_) return begin_withdrawal(std::move(lock), State::kWithdrawing);
  state_ = State::kActive;
  auto waiters = take(waiters_);
  lock.unlock();
  for (auto& ready : waiters) ready(0);
}

int64_t CookieCore::write(Bytes bytes, uint64_t offset) {
  Lock lock(mutex_);
  if (state_ != State::kActive) return -ENOBUFS;
  auto object = object_;
  lock.unlock();
  return object->write_locally(bytes, offset);
}

int CookieCore::resize(uint64_t size) {
  // The lock keeps a withdrawal from beginning; it is held across the disk.
  Lock lock(mutex_);
  if (state_ != State::kActive) return -ENOBUFS;
  ++engine_.counters().resizes;
  return object_->resize(size);
}

char CookieCore::state() const {
  Lock lock(mutex_);
  return static_cast<char>(state_);
}

bool CookieCore::present(ByteRange range) const {
  auto file = slot_.use();
  if (!file || !file->present(range)) return false;
  trace::event(trace::Point::kPrepRead, {{"inode", file->id().inode},
                                         {"verdict", "read"},
                                         {"reason", "have-data"},
                                         {"start", range.begin},
                                         {"len", range.size()}});
  return true;
}

bool CookieCore::complete() const {
  auto file = slot_.use();
  return file && file->complete(size());
}

int64_t CookieCore::read(MutableBytes out, uint64_t offset) {
  uint32_t before = invalidations_.load();
  auto file = slot_.use();
  if (!file) return -ENOBUFS;
  trace::event(trace::Point::kRead, {{"inode", file->id().inode}, {"start", offset}, {"len", out.size()}});
  int err = inject_read();
  auto fd = file->open();
  if (!err && !fd) err = fd.error();
  const bool mapped = file->presence() == Presence::kContentMap;
  const uint64_t discards = file->discards();
  if (!err && mapped && !file->present({offset, offset + out.size()})) return -ESTALE;
  ssize_t got = 0;
  if (!err && (got = ::pread(fd.get(), out.data(), out.size(), static_cast<off_t>(offset))) < 0) err = -errno;
  if (err) return trace::vfs_error("read", err, {.inode = file->id().inode});
  if (mapped && file->discards() != discards) return -ESTALE;
  if (mapped) file->map().note_use(offset / kBlockSize, (offset + out.size() + kBlockSize - 1) / kBlockSize);
  return before == invalidations_.load() ? got : -ESTALE;
}

void CookieCore::keep() {
  std::lock_guard lock(discarding_);
  kept_ = true;
}

uint64_t CookieCore::discard(uint64_t bytes) {
  auto file = slot_.use();
  std::lock_guard lock(discarding_);
  return file && !kept_ ? file->discard(bytes) : 0;
}

int CookieCore::prove(const proto::MerkleProof& proof) {
  if (!engine_.options().verify) return -EOPNOTSUPP;
  if (!proto::check_shape(proof.shape)) return -EINVAL;
  // The lock keeps a withdrawal from beginning; it is held across the disk, as for resize.
  Lock lock(mutex_);
  if (proof_) return *proof_ == proof ? 0 : -EEXIST;
  if (runs_on_data())
    if (int err = object_->prove(proof)) return err;
  proof_ = std::make_unique<proto::MerkleProof>(proof);
  return 0;
}

Cookie::Scrub CookieCore::scrub(uint64_t from, uint64_t most) {
  std::shared_ptr<Object> object;
  {
    Lock lock(mutex_);
    if (state_ == State::kActive) object = object_;
  }
  if (!object) return {.next = UINT64_MAX};
  auto done = object->scrub(from, most);
  return {.next = done.next, .bytes = done.bytes, .damaged = std::move(done.damaged)};
}

void CookieCore::read_ahead(ByteRange range) {
  auto file = slot_.use();
  if (!file) return;
  if (auto fd = file->open())
    ::posix_fadvise(fd.get(), static_cast<off_t>(range.begin), static_cast<off_t>(range.size()), POSIX_FADV_WILLNEED);
}

Result<Fd> CookieCore::backing_file() {
  auto file = slot_.use();
  if (!file) return fail(Code::kGone, "cookie: no backing file is attached");
  keep();
  if (int err = file->mark_read_directly()) return fail_sys(-err, "mark a backing file that the kernel reads");
  auto open = file->open();
  Fd fd(::open(("/proc/self/fd/" + std::to_string(open.get())).c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd) return fail_sys(errno, "open the backing file once more");
  return fd;
}

bool CookieCore::is_backing_file(uint64_t device, uint64_t inode) const {
  auto file = slot_.use();
  return file && file->id() == InodeId{.device = device, .inode = inode};
}

Cookie::Stat CookieCore::stat() const {
  Stat out;
  out.size = size();
  out.reads_requested = reads_requested_.load(std::memory_order_relaxed);
  if (auto file = slot_.use()) {
    out.present_bytes = file->map().present_blocks() * kBlockSize;
    out.durable_bytes = file->map().durable_blocks() * kBlockSize;
    out.proven = file->proof() != nullptr;
  }
  return out;
}

std::shared_ptr<Cookie::Wait> CookieCore::ensure(ByteRange range, UniqueFunction<void(int)> done) {
  if (present(range)) {
    done(0);
    return nullptr;
  }
  auto rounded_end = range.end > UINT64_MAX - kBlockSize ? range.end : round_up(range.end, kBlockSize);
  auto op = std::make_shared<EnsureOp>(shared_from_this(), ByteRange{round_down(range.begin, kBlockSize), rounded_end},
                                       std::move(done));
  Lock lock(mutex_);
  if (state_ == State::kActive) {
    auto object = object_;
    lock.unlock();
    op->start(std::move(object));
  } else if (state_ == State::kLookingUp || state_ == State::kCreating || state_ == State::kInvalidating) {
    waiters_.push_front([op, self = shared_from_this()](int result) {
      std::shared_ptr<Object> object;
      if (result == 0) {
        Lock relock(self->mutex_);
        object = self->object_;
      }
      op->start(std::move(object));
    });
  } else {
    lock.unlock();
    op->start(nullptr);
  }
  return op->finished() ? nullptr : op;
}

}  // namespace hydrant::cachefiles
