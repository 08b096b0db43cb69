#include <sys/resource.h>

#include "base/check.h"
#include "base/log.h"
#include "cachefiles/engine_impl.h"
#include "cachefiles/handle.h"
#include "proto/cachefiles_label.h"

namespace hydrant::cachefiles {
namespace {

constexpr size_t kVolumeKeyLimit = 254;  // "I<key>" is a file name
constexpr size_t kCookieKeyLimit = 255;

size_t open_files_of(const EngineOptions& options) {
  rlimit limit{};
  if (!options.open_files) ::getrlimit(RLIMIT_NOFILE, &limit);
  return std::max<size_t>(options.open_files ? options.open_files : limit.rlim_cur / 2, 1);
}

}  // namespace

std::unique_ptr<Engine> Engine::create(EngineOptions options) { return std::make_unique<EngineImpl>(options); }

EngineImpl::EngineImpl(EngineOptions options)
    : options_(options),
      descriptors_(open_files_of(options)),
      pool_("cachefiles", std::clamp(options.worker_threads, 1u, 64u)),
      commits_("commits", std::clamp(options.worker_threads, 1u, 64u)),
      maintenance_([this] { maintain(); }) {}

EngineImpl::~EngineImpl() {
  HYDRANT_CHECK(clients_.load() == 0, "a cookie or volume outlives its engine");
  HYDRANT_CHECK(settle(Deadline::after(std::chrono::minutes(1))), "a channel, handle or cookie outlives its engine");
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_all();
  maintenance_.join();
}

int EngineImpl::open_channel(const Caller& caller, std::shared_ptr<Channel>* channel) {
  if (!caller.sys_admin) return -EPERM;
  std::unique_lock lock(mutex_);
  // A release counts from the last close, though the withdrawal it started is still under way.
  changed_.wait(lock, [&] { return !retired_; });
  if (cache_) return -EBUSY;
  cache_ = std::make_shared<Cache>(*this);
  auto opened = std::make_shared<ChannelImpl>(cache_);
  lock.unlock();
  *channel = std::move(opened);
  return 0;
}

std::shared_ptr<Cache> EngineImpl::cache() {
  std::lock_guard lock(mutex_);
  return cache_;
}

void EngineImpl::retire_cache(std::shared_ptr<Cache> cache) {
  std::lock_guard lock(mutex_);
  retired_ = std::move(cache);
  changed_.notify_all();
}

void EngineImpl::maintain() {
  std::unique_lock lock(mutex_);
  auto next = Clock::system().now() + options_.maintenance_interval;
  while (!stopping_) {
    changed_.wait_until(lock, next, [&] { return stopping_ || retired_; });
    if (auto retired = retired_) {
      lock.unlock();
      retired->unbind();
      retired.reset();
      lock.lock();
      auto old = std::move(cache_);
      retired_.reset();
      changed_.notify_all();
      lock.unlock();
      old.reset();
      lock.lock();
      continue;
    }
    if (stopping_) return;
    if (Clock::system().now() < next) continue;
    auto cache = cache_;
    lock.unlock();
    if (cache && cache->has(Cache::kReady)) cache->save_maps();
    cache.reset();
    discard_idle();
    lock.lock();
    next = Clock::system().now() + options_.maintenance_interval;
  }
}

void EngineImpl::discard_idle() {
  auto due = Clock::system().now() - options_.discard_after;
  std::unique_lock lock(mutex_);
  while (!idle_.empty() && idle_.front().first <= due) {
    auto cookie = idle_.front().second.lock();
    idle_.pop_front();
    lock.unlock();
    if (cookie) cookie->discard_if_idle();
    cookie.reset();
    lock.lock();
  }
}

void EngineImpl::cookie_idle(std::weak_ptr<CookieCore> cookie) {
  std::lock_guard lock(mutex_);
  idle_.emplace_back(Clock::system().now(), std::move(cookie));
}

Result<> EngineImpl::flush() {
  auto cache = this->cache();
  if (cache && cache->has(Cache::kReady)) cache->save_maps();
  if (cache && cache->has(Cache::kDead)) return fail(Code::kIo, "flush: the cache is dead");
  return {};
}

bool EngineImpl::settle(Deadline deadline) {
  std::unique_lock lock(mutex_);
  return changed_.wait_until(lock, deadline.at(),
                             [&] { return !retired_ && relinquishing_ == 0 && (!cache_ || cache_->pinned()); });
}

Result<std::shared_ptr<Volume>> EngineImpl::acquire_volume(std::string_view key, Bytes coherency) {
  if (key.empty() || key.size() > kVolumeKeyLimit || key.find('/') != key.npos || key.find('\0') != key.npos)
    return fail(Code::kInvalid, "volume key: 1 to 254 bytes without '/' or NUL");
  std::unique_lock lock(mutex_);
  std::shared_ptr<VolumeCore> core;
  if (auto found = volumes_.find(key); found != volumes_.end()) core = found->second.lock();
  if (core) {
    bool same = std::equal(coherency.begin(), coherency.end(), core->coherency().begin(), core->coherency().end());
    if (core->acquired || !same) {
      lock.unlock();
      return fail(Code::kBusy, "volume " + std::string(key) + " is acquired already");
    }
    core->acquired = true;  // relinquished, but some of its cookies are still going
  } else {
    core = std::make_shared<VolumeCore>(*this, std::string(key), to_buffer(coherency));
    volumes_.insert_or_assign(std::string(key), core);
  }
  lock.unlock();
  clients_.fetch_add(1);
  return std::shared_ptr<Volume>(core.get(), [core, this](Volume*) mutable {
    volume_released(*core);
    core.reset();
    clients_.fetch_sub(1);
  });
}

void EngineImpl::volume_released(VolumeCore& volume) {
  std::lock_guard lock(mutex_);
  volume.acquired = false;
}

void EngineImpl::volume_gone(const std::string& key) {
  std::unique_lock lock(mutex_);
  auto found = volumes_.find(key);
  if (found != volumes_.end() && found->second.expired()) volumes_.erase(found);
  auto cache = cache_;
  lock.unlock();
  if (cache) cache->release_volume(key);
}

Result<std::shared_ptr<Cookie>> EngineImpl::acquire_cookie(std::shared_ptr<Volume> volume, Bytes key,
                                                           CookieOptions options) {
  if (key.empty() || key.size() > kCookieKeyLimit || options.aux.size() > proto::kAuxLimit)
    return fail(Code::kInvalid, "cookie key: 1 to 255 bytes; aux data: at most 255");
  auto& volume_core = static_cast<VolumeCore&>(*volume);
  std::unique_lock lock(mutex_);
  std::shared_ptr<VolumeCore> core;
  if (auto found = volumes_.find(volume_core.key()); found != volumes_.end()) core = found->second.lock();
  if (core.get() != &volume_core) return fail(Code::kInvalid, "cookie: a volume of another engine");
  auto predecessor = core->cookies.find(key);
  if (predecessor && !predecessor->relinquished()) {
    lock.unlock();
    return fail(Code::kBusy, "cookie is acquired already");
  }
  auto cookie = std::make_shared<CookieCore>(*this, core, to_buffer(key), std::move(options), std::move(predecessor));
  core->cookies.insert(*cookie);
  lock.unlock();
  ++counters_.acquires;
  clients_.fetch_add(1);
  return std::shared_ptr<Cookie>(cookie.get(), [cookie, volume](Cookie*) mutable {
    EngineImpl& engine = cookie->engine();
    cookie->relinquish(false, {});
    cookie.reset();
    volume.reset();
    engine.clients_.fetch_sub(1);
  });
}

void EngineImpl::cookie_relinquished() {
  std::lock_guard lock(mutex_);
  ++relinquishing_;
}

void EngineImpl::cookie_dropped(CookieCore& cookie) {
  std::lock_guard lock(mutex_);
  cookie.registry().erase(cookie);  // unless a successor stands there already
  --relinquishing_;
  changed_.notify_all();
}

}  // namespace hydrant::cachefiles
