// Keeps the cache within its limits: culls what nobody uses, the least recently used first; when that is not enough,
// gives back what has not been read lately of what is mounted. What cachefilesd is to the kernel's cache.
#pragma once

#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "base/clock.h"
#include "cachefiles/engine.h"
#include "daemon/pins.h"
#include "proto/admin.h"

namespace hydrant::daemon {

struct CullerOptions {
  std::string directory;  // the cache's, ROOT/cache
  uint64_t quota = 0;     // bytes on the disk; 0: only the engine's thresholds of free space count. restart
  Duration pause = std::chrono::seconds(2);  // between looks at the engine's state
  Duration walk = std::chrono::seconds(10);  // between walks through the cache's files, where a quota needs them
};

// Thread-safe. Its thread asks the engine every `pause`.
class Culler {
 public:
  // What is in use and not pinned, for the second step.
  using Live = std::function<std::vector<std::shared_ptr<cachefiles::Cookie>>()>;

  Culler(cachefiles::Engine& engine, std::shared_ptr<cachefiles::Channel> channel, CullerOptions options,
         const Pins& pins, Live live);
  ~Culler();

  // Ends what is under way, soon. For who must wait for a caller of collect().
  void stop() { stop_.request_stop(); }

  // Now, and until no more than `at_most` bytes are on the disk; without it, as the limits say. Objects in use are only
  // touched for limits, those that are pinned never.
  Result<proto::GcReply> collect(std::optional<uint64_t> at_most);

 private:
  struct Victim {
    std::string folder, name;  // below options_.directory
    uint64_t bytes;
    int64_t used_at;  // ns since 1970
    bool pinned;
  };
  void run();
  bool short_of_space();
  Result<std::vector<Victim>> survey() const;
  int cull(const Victim& victim);
  using Enough = std::function<bool(uint64_t usage)>;
  void cull_unused(const std::vector<Victim>& victims, const Enough& enough, proto::GcReply& reply);
  void discard_unread(uint64_t target, const Enough& enough, proto::GcReply& reply);
  bool pause(Duration duration) const;  // false: we are stopping

  cachefiles::Engine& engine_;
  const std::shared_ptr<cachefiles::Channel> channel_;  // the supervisor's, shared with the channel server
  const CullerOptions options_;
  const Pins& pins_;
  const Live live_;
  std::stop_source stop_;
  std::mutex one_at_a_time_;  // held across the disk
  Instant swept_{};           // when those in use were asked last; guarded by one_at_a_time_
  std::jthread thread_;       // last: starts when the rest stands
};

}  // namespace hydrant::daemon
