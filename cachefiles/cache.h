// One cachefiles cache: the instance behind an open control channel, from its first command to its withdrawal.
//
// Its parts lie in files of their own: commands.cpp (the text protocol), bind.cpp (going online and offline),
// space.cpp (thresholds, the space check, the state text), cull.cpp (cull, inuse, burying), ondemand.cpp (delivery and
// answers), volume.cpp (volumes on disk), requests.h (the table). Locks: docs/locks.md.
#pragma once

#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_set>

#include "base/gate.h"
#include "base/thread_pool.h"
#include "cachefiles/disk.h"
#include "cachefiles/engine.h"
#include "cachefiles/in_use.h"
#include "cachefiles/requests.h"
#include "cachefiles/trace.h"

namespace hydrant::cachefiles {

class BackingFile;
class Cache;
class EngineImpl;
class Object;

// A volume's directory and its 256 fan-out directories: marked in use, opened only when needed.
class CacheVolume {
 public:
  CacheVolume(Cache& cache, std::string key, Buffer coherency)
      : cache_(cache), key_(std::move(key)), coherency_(std::move(coherency)) {}

  // Blocks on the disk. 0 or -errno.
  int go_online(int cache_directory);
  // Rewrites the label and gives the marks back.
  void go_offline();

  const std::string& key() const { return key_; }
  uint32_t hash() const { return hash_; }
  int directory() const { return directory_.get(); }
  // Opens a fan-out directory, making it again if somebody removed it.
  Result<Fd> open_fanout(uint8_t index);

 private:
  int check_label();
  int write_label();
  void unmark();

  Cache& cache_;
  const std::string key_;
  const Buffer coherency_;
  uint32_t hash_ = 0;
  Fd directory_;
  InodeId id_;
  std::mutex fanouts_mutex_;
  std::vector<InodeId> fanouts_;
};

// Thread-safe. Held by its channel, its objects and handles, and by the engine while it has the slot.
class Cache : public std::enable_shared_from_this<Cache> {
 public:
  enum Flag : unsigned { kReady = 1, kDead = 2, kCulling = 4, kStateChanged = 8, kOnDemand = 16 };

  explicit Cache(EngineImpl& engine);
  ~Cache();

  bool has(Flag flag) const { return flags_.load() & flag; }
  bool live() const { return has(kReady) && !has(kDead) && !withdrawn_.load(); }

  // commands.cpp: one command, spec 2.3.
  int64_t command(Bytes text, const Caller& caller);

  // ondemand.cpp, spec 2.4, 2.6, 6.
  int64_t read(size_t buffer_size, Receiver& receiver);
  unsigned poll() const;
  int read_complete(const Object& object, uint32_t id);
  // Of those fills that were written whole and name a READ.
  void read_complete(const Object& object, std::span<Handle::Fill> fills);
  // Spec 6.3. On failure the request was not queued and its callback not called.
  int send(const RequestPtr& request);
  RequestTable& requests() { return requests_; }

  void on_wake(UniqueFunction<void()> wake);
  // Announces that poll() may have changed. Under no lock.
  void wake();

  // The reference of the channel or of a handle. The last one out ends the cache.
  void pin() { pins_.fetch_add(1); }
  void unpin();
  bool pinned() const { return pins_.load() > 0; }
  void channel_released();
  // A fatal condition of the backing store (spec 7.10).
  void io_error(const char* what, int err, trace::Subject subject = {});
  // Something did not reach the disk that should have: there will be no mark of a clean end.
  void set_broken() { broken_.store(true); }
  // Takes everything off line. Blocks; only the engine's maintenance thread calls it.
  void unbind();

  // space.cpp
  enum class Reason { kNone, kCreate, kWrite };
  int check_space(uint64_t files, uint64_t bytes, Reason reason);
  void count_writing(int64_t blocks) { blocks_writing_.fetch_add(blocks); }
  void count_released(uint64_t sectors);

  // bind.cpp: spec 4 a to f. `created` says whether the directory is new; a null `out` leaves it closed. The caller
  // owns the mark. -errno or 0.
  int obtain_directory(int parent, const std::string& name, Fd* out, InodeId* id, bool* created);
  // cull.cpp: spec 8.4. 0 or -errno. `why` is for the trace.
  int bury(int directory, const std::string& name, const struct stat& entry, const char* why);

  // volume.cpp. Null: the volume cannot be used. Blocks on the disk.
  std::shared_ptr<CacheVolume> obtain_volume(const std::string& key, const Buffer& coherency);
  void release_volume(const std::string& key);

  // A lookup enters; the withdrawal closes the gate and then withdraws what the lookups attached.
  Gate& lookups() { return lookups_; }
  void add_object(const std::shared_ptr<Object>& object);
  void remove_object(const std::shared_ptr<Object>& object);

  void remember_unsaved(const std::shared_ptr<Object>& object);
  void save_maps();

  EngineImpl& engine() { return engine_; }
  Listing::CacheRow describe();  // listing.cpp
  InUse& in_use();
  Disk& disk();
  uint64_t block_size() const { return block_size_; }
  const std::string& maps_directory() const { return maps_directory_; }
  // The engine that had this directory before ended in order, or there was none.
  bool was_clean() const { return was_clean_; }
  Presence presence() const;
  Naming naming() const;
  void submit(UniqueFunction<void()> task);
  void submit_commit(UniqueFunction<void()> task);

  struct Percent {
    uint64_t run = 7, cull = 5, stop = 1;
  };

 private:
  // commands.cpp; all under command_mutex_
  int run(std::string_view word, std::string_view arguments, const Caller& caller);
  int set_percentage(std::string_view word, std::string_view arguments);
  int set_text(std::string& slot, std::string_view arguments);
  int set_debug(std::string_view arguments);
  int copen(std::string_view arguments);
  int restore();

  // bind.cpp; under command_mutex_
  int bind(std::string_view arguments, const Caller& caller);
  int go_online(const Caller& caller);
  int check_file_system();
  void go_offline();
  int take_clean_mark();
  void put_clean_mark();
  void kill();

  // cull.cpp; under command_mutex_
  int cull(std::string_view name, const Caller& caller);
  int inuse(std::string_view name, const Caller& caller);
  int find_victim(std::string_view name, const Caller& caller, Fd* directory, struct stat* entry);
  bool inside_cache(int directory) const;
  int move_to_graveyard(int directory, const std::string& name);

  // space.cpp
  int64_t read_state(size_t buffer_size, Receiver& receiver);
  void set_culling(bool on);
  void compute_thresholds(const struct statfs& stats);

  // ondemand.cpp
  int64_t deliver_open(RequestTable::Taken& taken, Receiver& receiver);

  EngineImpl& engine_;
  std::atomic<unsigned> flags_{0};
  std::atomic<bool> withdrawn_{false};
  std::atomic<bool> broken_{false};
  std::atomic<int> pins_{0};

  std::mutex command_mutex_;  // one command at a time; guards the settings below
  Percent file_percent_, block_percent_;
  std::string directory_, tag_;

  // Written by bind before READY is set, read after READY was seen.
  Fd root_, cache_directory_, graveyard_;
  InodeId cache_id_, graveyard_id_;
  bool cache_marked_ = false, graveyard_marked_ = false;
  std::string maps_directory_;
  bool was_clean_ = false;
  uint64_t block_size_ = 4096;
  Percent file_threshold_{0, 0, 0}, block_threshold_{0, 0, 0};
  std::atomic<uint32_t> graveyard_counter_{0};

  std::atomic<int64_t> blocks_writing_{0};
  std::atomic<uint32_t> files_released_{0};
  std::atomic<uint64_t> sectors_released_{0};

  RequestTable requests_;
  Gate lookups_;

  std::mutex volumes_mutex_;  // held across the disk: one volume goes online at a time
  std::map<std::string, std::shared_ptr<CacheVolume>> volumes_;

  std::mutex objects_mutex_;
  std::condition_variable objects_gone_;
  std::unordered_set<std::shared_ptr<Object>> objects_;
  std::unordered_set<std::shared_ptr<Object>> unsaved_;

  std::mutex wake_mutex_;
  std::shared_ptr<UniqueFunction<void()>> wake_;  // shared with whoever calls it at the moment
};

}  // namespace hydrant::cachefiles
