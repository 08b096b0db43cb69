// The cachefiles engine: what the kernel's fscache front end and cachefiles back end were, as a library.
//
// Two faces. The *control channel* (`Channel`, `Handle`) is the user daemon's: it is the kernel's protocol call by
// call, so results are byte counts or negative errnos, never Result. The *consumer* (`Volume`, `Cookie`) is the
// mount's: it is asynchronous, because a front must never block on a user daemon.
//
// Normative behaviour: docs/cachefiles.md. One Engine stands for one kernel: one channel slot, one registry of caches.
#pragma once

#include <cerrno>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/byte_range.h"
#include "base/bytes.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/fd.h"
#include "base/unique_function.h"
#include "proto/merkle.h"

namespace hydrant::cachefiles {

class Disk;

// When a new object's file gets its name. The kernel links it at withdrawal, so a crash loses the session's objects.
enum class Naming { kFromBirth, kAtCommit };
// What says that a block is there: our own content map, or (the kernel's way) the backing file's allocation.
enum class Presence { kContentMap, kSparse };

// Where a table of leaves with that root can be had (docs/formats/leaf-table.md). It is not believed before it gives
// the root. Called from any thread; must not wait for a user daemon.
using LeafSource = std::function<Result<std::string>(const Digest& root)>;

struct EngineOptions {
  Naming naming = Naming::kFromBirth;
  Presence presence = Presence::kContentMap;
  unsigned worker_threads = 2;  // for lookups, and as many for commits; 1..64
  // A file whose label is missing or too long is replaced like a stale one (E9). The kernel fails its lookup for good.
  bool replace_unlabelled = false;
  // How often what is present is made durable and idle cookies are looked at. At least 10 ms.
  Duration maintenance_interval = std::chrono::seconds(3);
  // A cookie that nobody uses for that long gives up its backing file (spec 7.6); its next use looks it up again.
  Duration discard_after = std::chrono::seconds(10);
  // Descriptors of backing files that stay open; of the others an open object costs memory alone. 0: half of what the
  // process may open when the engine is made.
  size_t open_files = 0;
  Disk* disk = nullptr;  // null: the system's; tests put a full or a failing disk here
  // What a cookie must be (Cookie::prove) is checked here. False: proofs are not required, and those that the cache has
  // are forgotten with the first use of their object.
  bool verify = true;
  LeafSource leaves = {};  // for Cookie::prove
};

// Who performs a control operation: what the kernel would take from the calling task.
struct Caller {
  bool sys_admin = true;  // CAP_SYS_ADMIN
  int cwd = AT_FDCWD;     // directory that relative paths, `cull` and `inuse` refer to
};

// The anonymous, write-only descriptor of one object. Sharing the pointer is dup(2); dropping the last reference is the
// last close. Thread-safe.
class Handle {
 public:
  virtual ~Handle() = default;
  virtual int64_t pwrite(Bytes bytes, uint64_t offset) = 0;   // bytes written or -errno
  virtual int64_t write(Bytes bytes) = 0;                     // at the handle's own position
  virtual int64_t lseek(int64_t offset, int whence) = 0;      // on the backing file; new position or -errno
  virtual int ioctl(uint32_t number, uint64_t argument) = 0;  // READ_COMPLETE: argument is the msg_id

  struct Fill {
    Bytes bytes;
    uint64_t offset = 0;
    std::optional<uint32_t> msg_id{};  // completed once everything was written
    int64_t written = 0;               // as pwrite's result
    int completion = -ECANCELED;       // as ioctl's result
  };
  // pwrite and READ_COMPLETE of each, as if one by one: neighbours may be written in one go.
  virtual void fill(std::span<Fill> fills);
};

// Where a control read puts what it got: the memory and the descriptor table of the reading task.
class Receiver {
 public:
  virtual ~Receiver() = default;
  // Reserves a descriptor number for an OPEN message; -EMFILE when the table is full.
  virtual int reserve_fd() = 0;
  // Gives a reserved number back that was not delivered: the message failed.
  virtual void release_fd(int fd) { (void)fd; }
  // Copies the message out and, for OPEN, makes `handle` visible under `fd`. False stands for a bad address: the
  // engine then takes the descriptor back. `handle` is null and `fd` -1 for READ and CLOSE.
  virtual bool deliver(Bytes message, std::shared_ptr<Handle> handle, int fd) = 0;
};

// One open instance of the control channel. Dropping the last reference is the release of section 2.7. Thread-safe.
class Channel {
 public:
  virtual ~Channel() = default;
  virtual int64_t write(Bytes command, const Caller& caller) = 0;  // full length or -errno
  // At most one message; 0 when nothing is deliverable now; never blocks.
  virtual int64_t read(size_t buffer_size, Receiver& receiver) = 0;
  virtual unsigned poll() = 0;  // EPOLLIN | EPOLLOUT
  // About how many requests wait, delivered or not: where there are many, a message more can wait for company.
  virtual size_t backlog() const { return 0; }
  // Called (from any thread, no engine lock held) whenever poll() may have changed. Replaces the earlier one, which may
  // still be running in another thread when this returns.
  virtual void on_wake(UniqueFunction<void()> wake) = 0;
};

inline constexpr uint8_t kAdviceSingleChunk = 0x01;
inline constexpr uint8_t kAdviceNoCacheOnWrite = 0x02;
inline constexpr uint8_t kAdviceWantCacheSize = 0x04;

// A consumer's grouping key, `erofs,<domain or fsid>` for mounts. Dropping the last reference relinquishes it.
class Volume {
 public:
  virtual ~Volume() = default;
  virtual const std::string& key() const = 0;
};

struct CookieOptions {
  uint8_t advice = kAdviceWantCacheSize;
  uint64_t size = 0;
  Buffer aux{};
};

// One data object as its consumer sees it. Thread-safe. Dropping the last reference relinquishes it and keeps the data.
class Cookie {
 public:
  // What became of an `ensure`: destroying it does nothing, `cancel` is the killed reader.
  class Wait {
   public:
    virtual ~Wait() = default;
    // The request leaves the table and its callback gets -EINTR, unless an answer won the race. Idempotent.
    virtual void cancel() = 0;
  };

  virtual ~Cookie() = default;

  // Starts the lookup if need be. `ready` is called exactly once: 0 when the object is active, else -errno
  // (-ENOBUFS: caching failed, -EIO: cache dead). Every use() is paired with unuse().
  virtual void use(UniqueFunction<void(int)> ready) = 0;
  virtual void unuse() = 0;

  virtual char state() const = 0;     // letter of the specification's conventions table
  virtual uint64_t size() const = 0;  // as the user daemon's copen said; valid once active

  // True when every block of `range` is present. Takes no lock, allocates nothing.
  virtual bool present(ByteRange range) const = 0;
  // True when the whole object is present and every granule of it is durable.
  virtual bool complete() const = 0;

  // Makes `range` (any alignment) present by asking the user daemon for each hole in it. `done` is called exactly
  // once, possibly before ensure returns and from any thread: 0, or -errno (-EIO: not supplied, -EINTR: cancelled).
  // The returned wait is null when `done` was called already.
  virtual std::shared_ptr<Wait> ensure(ByteRange range, UniqueFunction<void(int)> done) = 0;

  // Reads bytes of a range that ensure() or present() vouched for. Byte count (short only at the end of the backing
  // file) or -errno; -ESTALE: the data has gone meanwhile, ask for it again. No lock, no allocation.
  virtual int64_t read(MutableBytes out, uint64_t offset) = 0;
  // Gives back about `bytes` of what nobody has read or written since this was asked before, with readers and writers
  // at work: what is gone is asked for anew. A user daemon may take what it wrote a moment ago for present, so some
  // seconds lie between two calls. Bytes given back; 0 after keep().
  virtual uint64_t discard(uint64_t bytes) { return (void)bytes, 0; }
  // From now on nothing is discarded: somebody may read the backing file by himself. A discard under way is over when
  // this returns.
  virtual void keep() {}
  // From now on, and over restarts, bytes of the object become present only when they hash to `proof`, whoever writes
  // them: a granule that does not match is refused with -EIO, and one that is present is not written again. What is
  // present already must prove itself before it is read. To be called while the cookie is active, or before its use:
  // then its lookup fails when the object cannot be proven. 0; -EEXIST: it must be something else already, as long as
  // it is in use; -ESTALE: the
  // object has another size; -ENODATA: no leaves with that root (EngineOptions::leaves); -EOPNOTSUPP.
  virtual int prove(const proto::MerkleProof& proof) { return (void)proof, -EOPNOTSUPP; }
  struct Scrub {
    uint64_t next = 0;                    // where to go on; UINT64_MAX: that was the end
    uint64_t bytes = 0;                   // that were hashed
    std::vector<ByteRange> damaged = {};  // present no longer: the next reader has them fetched anew
  };
  // Hashes what is present of a proven object, from `from` on, about `most` bytes. Reads the disk, not the page cache.
  virtual Scrub scrub(uint64_t from, uint64_t most) { return (void)from, (void)most, Scrub{.next = UINT64_MAX}; }
  // Has the disk read the range into memory; returns before it has. A hint only.
  virtual void read_ahead(ByteRange range) = 0;
  // Opens the backing file once more, read-only: for a complete object that the kernel reads by itself.
  // Whether it is complete must be asked after this, which is a keep(), too.
  virtual Result<Fd> backing_file() = 0;
  // Whether that file is the one now: after an invalidation or a new lookup it may be another. No lock, no allocation.
  virtual bool is_backing_file(uint64_t device, uint64_t inode) const { return (void)device, (void)inode, false; }

  // Stores the consumer's own bytes, as network file systems do in original mode (section 7.8). `offset` is a multiple
  // of 4096. Byte count or -errno (-ENOBUFS: no room, or not active).
  virtual int64_t write(Bytes bytes, uint64_t offset) = 0;
  virtual int resize(uint64_t size) = 0;  // section 7.8; 0 or -errno
  virtual void invalidate() = 0;          // section 7.7
  // Ends the consumer's interest now instead of at the last reference. `retire` also deletes the data.
  // `done` runs when the object is withdrawn (its CLOSE read, its file committed or unlinked).
  virtual void relinquish(bool retire, UniqueFunction<void()> done) = 0;

  struct Stat {
    uint64_t size = 0;
    uint64_t present_bytes = 0;  // by the content map
    uint64_t durable_bytes = 0;
    uint64_t reads_requested = 0;  // READ requests sent to the user daemon
    bool proven = false;           // see prove()
  };
  virtual Stat stat() const = 0;
};

// What there is at one moment (spec 10.3): for people and for statistics.
struct Listing {
  struct CacheRow {
    std::string tag, directory;
    char state = '-';  // - not present, P preparing, A active, E I/O error, W withdrawn
    bool on_demand = false, culling = false;
    uint64_t objects = 0, requests = 0, pins = 0;
  };
  struct VolumeRow {
    std::string key;
    uint64_t cookies = 0;
    bool acquired = false;
  };
  struct CookieRow {
    std::string volume;
    Buffer key;
    char state = '-';
    uint64_t uses = 0, size = 0, present = 0, reads = 0;
  };
  std::vector<CacheRow> caches;
  std::vector<VolumeRow> volumes;
  std::vector<CookieRow> cookies;
  // By name: cookies, volumes, acquires, relinquishes, retires, lru.idle, lru.discarded, lru.postponed, invalidations,
  // resizes, no_space.write, no_space.create, no_space.other, culled, files.open, files.reopened, reads, writes,
  // verify.written, verify.found, verify.scrubbed, verify.refused, verify.damaged.
  std::vector<std::pair<std::string, uint64_t>> counters;
};

// Thread-safe. Outlives every channel, handle, volume and cookie made from it. Its destructor finishes what was begun:
// the cache is withdrawn, files are committed, content maps are durable.
class Engine {
 public:
  static std::unique_ptr<Engine> create(EngineOptions options);
  virtual ~Engine() = default;

  // -EPERM, -EBUSY as section 2.1; on success 0 and *channel is set.
  virtual int open_channel(const Caller& caller, std::shared_ptr<Channel>* channel) = 0;

  // Key 1..254 bytes without '/'. kBusy while the same key is acquired and not relinquished.
  virtual Result<std::shared_ptr<Volume>> acquire_volume(std::string_view key, Bytes coherency = {}) = 0;
  // Binary key, 1..255 bytes. The cookie keeps its volume alive. kBusy while the same key is acquired.
  virtual Result<std::shared_ptr<Cookie>> acquire_cookie(std::shared_ptr<Volume> volume, Bytes key,
                                                         CookieOptions options = {}) = 0;

  // Makes everything present durable now: data first, then the content maps. Blocks on the disk. Never called from a
  // callback of the engine.
  virtual Result<> flush() = 0;
  // Waits until withdrawals that have begun are over: the cache of a released channel, relinquished cookies whose CLOSE
  // was read. False at the deadline. Never called from a callback of the engine.
  virtual bool settle(Deadline deadline) = 0;
  // At most `cookie_limit` cookies are listed; the counters count all. Takes locks: not for a hot path.
  virtual Listing listing(size_t cookie_limit = SIZE_MAX) = 0;
};

}  // namespace hydrant::cachefiles
