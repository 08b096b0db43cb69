// The back end's side of a cookie: one incarnation between a lookup and its withdrawal, with its backing file and its
// on-demand record.
#pragma once

#include <memory>
#include <mutex>
#include <string>

#include "base/gate.h"
#include "base/small_mutex.h"
#include "cachefiles/backing_file.h"
#include "cachefiles/requests.h"
#include "cachefiles/trace.h"
#include "proto/cachefiles_label.h"

namespace hydrant::cachefiles {

class Cache;
class CacheVolume;
class CookieCore;

// Held by its cookie while attached, by the cache's list, by its requests and by the daemon's handle.
class Object final : public std::enable_shared_from_this<Object>, private Reopener {
 public:
  Object(std::shared_ptr<Cache> cache, std::shared_ptr<CookieCore> cookie, std::shared_ptr<CacheVolume> volume,
         uint8_t fanout);
  ~Object();

  const std::string& volume_key() const;
  std::string name() const;  // made from the key, which has one
  Bytes key() const;
  Cache& cache() const { return *cache_; }
  const std::shared_ptr<Cache>& cache_ptr() const { return cache_; }
  CookieCore& cookie() const { return *cookie_; }
  uint32_t debug_id() const { return debug_id_; }  // for the trace

  // Finds or makes the backing file, asks the daemon, checks the label, attaches. `done` gets 0 or -errno, once, from a
  // worker thread. Waits for the daemon without holding a thread.
  void look_up(Gate::Pass pass, UniqueFunction<void(int)> done);
  // The object's end (spec 7.6): CLOSE, cancel what waits, commit or (for a retired cookie) delete the file, detach.
  // `done` runs on a worker.
  void withdraw(UniqueFunction<void()> done);
  // Cancels everything that waits for the daemon; later requests fail.
  void drop();

  // Null while no file is attached.
  std::shared_ptr<BackingFile> file() const {
    std::lock_guard lock(file_mutex_);
    return file_;
  }
  // Replaces the file by a fresh one (spec 7.7). On a worker. 0 or -errno.
  int invalidate();
  int resize(uint64_t size);
  // A consumer's own data (spec 7.8). Byte count or -errno.
  int64_t write_locally(Bytes bytes, uint64_t offset);

  Proving proving() const;
  // BackingFile::prove of the file that is attached; -ESTALE: the object has another size.
  int prove(const proto::MerkleProof& proof);
  // Granules of `window` that are on the disk and prove themselves. Whether its first block is present now.
  bool find(BackingFile& file, ByteRange window);
  BackingFile::Scrubbed scrub(uint64_t from, uint64_t most);

  // Queues an OPEN for a handle that was closed while READs wait.
  void reopen();
  // Saves the content map if there is one to save. On a worker.
  void save_map();

  OnDemand ondemand;  // guarded by the cache's RequestTable

 private:
  Fd open_again() override;
  void make_clean() override { save_map(); }
  std::weak_ptr<Reopener> weak_reopener() { return std::shared_ptr<Reopener>(shared_from_this(), this); }

  struct Lookup {
    Gate::Pass pass;  // keeps the cache from ending under the lookup
    UniqueFunction<void(int)> done;
  };
  int find_file();
  int open_existing(int directory, const struct stat& stat);
  int create_file();
  void open_then(void (Object::*next)(int));
  void opened(int result);
  void opened_for_new_file(int result);
  int check_label();
  int attach();
  int prove_found();
  int link_new_file();
  int write_label(proto::Content content);
  void finish_lookup(int result);
  void release_file();
  void commit();
  void unlink_file();
  int adjust_length(uint64_t size);
  void set_file(std::shared_ptr<BackingFile> file);
  trace::Subject subject() const { return {debug_id_, found_ ? found_->id().inode : 0}; }

  const std::shared_ptr<Cache> cache_;
  const std::shared_ptr<CookieCore> cookie_;
  const std::shared_ptr<CacheVolume> volume_;
  const uint8_t fanout_;
  const uint32_t debug_id_;

  // The lookup, the invalidation and the withdrawal of an object follow each other; these need no lock.
  std::unique_ptr<Lookup> lookup_;
  std::shared_ptr<BackingFile> found_;  // between finding and attaching
  bool existing_ = false;               // found_ has a name
  std::atomic<bool> named_{false};      // the attached file has a name; the maintenance thread reads it
  bool needs_update_ = false;
  bool doomed_ = false;  // its invalidation failed: it is not to be found again
  std::atomic<bool> local_write_{false};

  mutable SmallMutex file_mutex_;
  std::shared_ptr<BackingFile> file_;
};

}  // namespace hydrant::cachefiles
