// What one engine owns beyond its caches: the slot, the registry of volumes, workers, marks, maintenance.
#pragma once

#include <condition_variable>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <thread>

#include "base/thread_pool.h"
#include "cachefiles/cache.h"
#include "cachefiles/cookie.h"
#include "cachefiles/counters.h"
#include "cachefiles/descriptor.h"
#include "cachefiles/engine.h"
#include "cachefiles/in_use.h"
#include "cachefiles/verifier.h"

namespace hydrant::cachefiles {

class EngineImpl final : public Engine {
 public:
  explicit EngineImpl(EngineOptions options);
  ~EngineImpl() override;

  int open_channel(const Caller& caller, std::shared_ptr<Channel>* channel) override;
  Result<std::shared_ptr<Volume>> acquire_volume(std::string_view key, Bytes coherency) override;
  Result<std::shared_ptr<Cookie>> acquire_cookie(std::shared_ptr<Volume> volume, Bytes key,
                                                 CookieOptions options) override;
  Result<> flush() override;
  bool settle(Deadline deadline) override;
  Listing listing(size_t cookie_limit) override;

  Counters& counters() { return counters_; }
  const EngineOptions& options() const { return options_; }
  Disk& disk() { return options_.disk ? *options_.disk : Disk::system(); }
  InUse& in_use() { return in_use_; }
  Descriptors& descriptors() { return descriptors_; }
  Verifier& verifier() { return verifier_; }
  void submit(UniqueFunction<void()> task) { pool_.submit(std::move(task)); }
  // Work that may wait for a long sync: the end of objects. Lookups do not queue behind it.
  void submit_commit(UniqueFunction<void()> task) { commits_.submit(std::move(task)); }

  // The cache that lookups go to, or null.
  std::shared_ptr<Cache> cache();
  // Its last pin is gone: the maintenance thread unbinds it and frees the slot.
  void retire_cache(std::shared_ptr<Cache> cache);

  void volume_released(VolumeCore& volume);  // its handle is gone
  void volume_gone(const std::string& key);  // and its last cookie, too
  void cookie_relinquished();
  void cookie_dropped(CookieCore& cookie);
  void cookie_idle(std::weak_ptr<CookieCore> cookie);

 private:
  void maintain();
  void discard_idle();

  const EngineOptions options_;
  InUse in_use_;
  Counters counters_;
  Verifier verifier_{counters_};
  Descriptors descriptors_;

  std::mutex mutex_;
  std::condition_variable changed_;
  std::shared_ptr<Cache> cache_;    // whoever holds the slot
  std::shared_ptr<Cache> retired_;  // the same, once its last pin is gone
  std::map<std::string, std::weak_ptr<VolumeCore>, std::less<>> volumes_;
  std::atomic<size_t> clients_{0};  // pointers to volumes and cookies that consumers hold
  size_t relinquishing_ = 0;        // cookies between relinquish and drop
  std::deque<std::pair<Instant, std::weak_ptr<CookieCore>>> idle_;
  bool stopping_ = false;

  // Destroyed first: its last tasks use what is above.
  ThreadPool pool_, commits_;
  std::thread maintenance_;
};

}  // namespace hydrant::cachefiles
