// The listings and counters of spec 10.3.
#include "cachefiles/engine_impl.h"

namespace hydrant::cachefiles {

Listing EngineImpl::listing(size_t cookie_limit) {
  Listing out;
  std::vector<std::shared_ptr<CookieCore>> cookies;
  // Weak pointers that are locked under the lock may be the last ones: they are dropped after it.
  std::vector<std::shared_ptr<VolumeCore>> volumes;
  std::unique_lock lock(mutex_);
  auto cache = cache_;
  uint64_t all = 0, idle = idle_.size();
  for (auto& [key, weak] : volumes_) {
    auto volume = weak.lock();
    if (!volume) continue;
    out.volumes.push_back({.key = key, .cookies = volume->cookies.size(), .acquired = volume->acquired});
    all += volume->cookies.size();
    for (auto* each : volume->cookies) {
      if (cookies.size() >= cookie_limit) break;
      if (auto cookie = each->weak_from_this().lock()) cookies.push_back(std::move(cookie));
    }
    volumes.push_back(std::move(volume));
  }
  lock.unlock();
  if (cache) out.caches.push_back(cache->describe());
  for (auto& cookie : cookies) {
    auto stat = cookie->stat();
    out.cookies.push_back({.volume = cookie->volume().key(),
                           .key = to_buffer(cookie->key()),
                           .state = cookie->state(),
                           .uses = cookie->uses(),
                           .size = stat.size,
                           .present = stat.present_bytes,
                           .reads = stat.reads_requested});
  }
  const Counters& c = counters_;
  out.counters = {{"cookies", all},
                  {"volumes", out.volumes.size()},
                  {"acquires", c.acquires.get()},
                  {"relinquishes", c.relinquishes.get()},
                  {"retires", c.retires.get()},
                  {"lru.idle", idle},
                  {"lru.discarded", c.lru_discards.get()},
                  {"lru.postponed", c.lru_postponed.get()},
                  {"invalidations", c.invalidations.get()},
                  {"resizes", c.resizes.get()},
                  {"no_space.write", c.no_space_write.get()},
                  {"no_space.create", c.no_space_create.get()},
                  {"no_space.other", c.no_space_other.get()},
                  {"culled", c.culled.get()},
                  {"files.open", descriptors_.open()},
                  {"files.reopened", descriptors_.reopened()},
                  {"reads", c.reads.get()},
                  {"writes", c.writes.get()},
                  {"verify.written", c.verified.get()},
                  {"verify.found", c.found.get()},
                  {"verify.scrubbed", c.scrubbed.get()},
                  {"verify.refused", c.refused.get()},
                  {"verify.damaged", c.damaged.get()}};
  return out;
}

Listing::CacheRow Cache::describe() {
  Listing::CacheRow out;
  {
    // A bind may hold this for long; its text is not worth the wait.
    std::unique_lock lock(command_mutex_, std::try_to_lock);
    if (lock) {
      out.tag = tag_;
      out.directory = directory_;
    } else {
      out.state = 'P';
    }
  }
  if (has(kReady)) out.state = withdrawn_.load() ? 'W' : has(kDead) ? 'E' : 'A';
  out.on_demand = has(kOnDemand);
  if (has(kCulling)) check_space(0, 0, Reason::kNone);  // room may have come without anybody looking
  out.culling = has(kCulling);
  out.requests = requests_.size();
  out.pins = static_cast<uint64_t>(pins_.load());
  std::lock_guard lock(objects_mutex_);
  out.objects = objects_.size();
  return out;
}

}  // namespace hydrant::cachefiles
