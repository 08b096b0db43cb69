// The front end's records: volumes and cookies as their consumers hold them, and the state machine of a cookie.
#pragma once

#include <atomic>
#include <forward_list>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <unordered_set>
#include <vector>

#include "base/small_mutex.h"
#include "cachefiles/engine.h"
#include "cachefiles/file_slot.h"

namespace hydrant::cachefiles {

class CookieCore;
class EngineImpl;
class Object;

// The cookies of a volume by their keys, one a key. A cookie stands here from its acquisition until it is dropped or
// succeeded, which its own memory outlives. Not thread-safe.
class CookieSet {
 public:
  // Null: none, or one that is on its way out of memory.
  std::shared_ptr<CookieCore> find(Bytes key) const;
  // In the place of whoever has the same key.
  void insert(CookieCore& cookie);
  void erase(CookieCore& cookie);
  size_t size() const { return cookies_.size(); }
  auto begin() const { return cookies_.begin(); }
  auto end() const { return cookies_.end(); }

 private:
  struct Hash {
    using is_transparent = void;
    size_t operator()(Bytes key) const noexcept { return std::hash<std::string_view>{}(as_text(key)); }
    size_t operator()(const CookieCore* cookie) const noexcept;
  };
  struct Equal {
    using is_transparent = void;
    bool operator()(const CookieCore* a, const CookieCore* b) const noexcept;
    bool operator()(Bytes a, const CookieCore* b) const noexcept;
    bool operator()(const CookieCore* a, Bytes b) const noexcept { return (*this)(b, a); }
  };
  std::unordered_set<CookieCore*, Hash, Equal> cookies_;
};

// Held by the consumer's pointer and by every cookie until it is dropped.
class VolumeCore final : public Volume {
 public:
  VolumeCore(EngineImpl& engine, std::string key, Buffer coherency)
      : engine_(engine), key_(std::move(key)), coherency_(std::move(coherency)) {}
  ~VolumeCore() override;

  const std::string& key() const override { return key_; }
  const Buffer& coherency() const { return coherency_; }

  // Guarded by the engine's mutex.
  bool acquired = true;
  CookieSet cookies;

 private:
  EngineImpl& engine_;
  const std::string key_;
  const Buffer coherency_;
};

// Shared by the consumer's pointer, its object, its waits and the tasks that work on it. The consumer's pointer has a
// deleter that relinquishes.
class CookieCore final : public Cookie, public std::enable_shared_from_this<CookieCore> {
 public:
  using Lock = std::unique_lock<SmallMutex>;
  // The youngest first. Eight bytes where nobody waits, which is nearly everywhere.
  using Waiters = std::forward_list<UniqueFunction<void(int)>>;
  enum class State : char {
    kQuiescent = '-',
    kLookingUp = 'L',
    kCreating = 'C',
    kActive = 'A',
    kInvalidating = 'I',
    kFailed = 'F',
    kDiscarding = 'U',
    kWithdrawing = 'W',
    kRelinquishing = 'R',
    kDropped = 'D',
  };

  CookieCore(EngineImpl& engine, std::shared_ptr<VolumeCore> volume, Buffer key, CookieOptions options,
             std::shared_ptr<CookieCore> predecessor);

  void use(UniqueFunction<void(int)> ready) override;
  void unuse() override;
  char state() const override;
  unsigned uses() const {
    Lock lock(mutex_);
    return uses_;
  }
  uint64_t size() const override { return size_.load(std::memory_order_acquire); }
  bool present(ByteRange range) const override;
  bool complete() const override;
  std::shared_ptr<Wait> ensure(ByteRange range, UniqueFunction<void(int)> done) override;
  int64_t read(MutableBytes out, uint64_t offset) override;
  uint64_t discard(uint64_t bytes) override;
  void keep() override;
  int prove(const proto::MerkleProof& proof) override;
  Scrub scrub(uint64_t from, uint64_t most) override;
  void read_ahead(ByteRange range) override;
  Result<Fd> backing_file() override;
  bool is_backing_file(uint64_t device, uint64_t inode) const override;
  int64_t write(Bytes bytes, uint64_t offset) override;
  int resize(uint64_t size) override;
  void invalidate() override;
  void relinquish(bool retire, UniqueFunction<void()> done) override;
  Stat stat() const override;

  const VolumeCore& volume() const { return *volume_; }
  Bytes key() const { return key_; }
  uint8_t advice() const { return advice_; }
  Bytes aux() const { return aux_; }
  EngineImpl& engine() const { return engine_; }
  bool retiring() const { return retire_.load(); }
  bool relinquished() const { return relinquished_.load(); }
  // Guarded by the engine's mutex.
  auto& registry() { return volume_->cookies; }

  // By the object, from the daemon's answer or its own lookup.
  void set_size(uint64_t size) { size_.store(size, std::memory_order_release); }
  void set_creating();
  std::optional<proto::MerkleProof> proof() const {
    Lock lock(mutex_);
    return proof_ ? std::optional(*proof_) : std::nullopt;
  }
  void publish(std::shared_ptr<BackingFile> file);
  void count_read() { reads_requested_.fetch_add(1, std::memory_order_relaxed); }

  void withdraw_from_cache(const std::shared_ptr<Object>& object);
  // Gives the file up if nobody used the cookie since it went idle. Otherwise false.
  void discard_if_idle();
  // Runs `task` once the cookie is dropped.
  void when_dropped(UniqueFunction<void()> task);

  void access_began() { accesses_.fetch_add(1); }
  void access_ended() { accesses_.fetch_sub(1); }

 private:
  void start_lookup();
  void run_lookup();
  void lookup_done(const std::shared_ptr<Object>& object, int result);
  void begin_withdrawal(Lock lock, State state);
  void withdrawn();
  // `waiters` are those of the lookup that it follows.
  void start_invalidation(Lock lock, Waiters waiters);
  void invalidated(int result);
  void finish_drop(Lock lock);
  bool runs_on_data() const { return state_ == State::kActive || state_ == State::kInvalidating; }

  EngineImpl& engine_;
  const std::shared_ptr<VolumeCore> volume_;
  const Buffer key_;
  const Buffer aux_;

  FileSlot slot_;  // what `present`, `read` and `complete` go through
  std::atomic<uint64_t> size_;
  std::atomic<uint32_t> invalidations_{0};
  std::atomic<uint64_t> reads_requested_{0};
  SmallMutex discarding_;         // held across the disk
  bool kept_ = false;             // nothing may go from under whoever reads the file by himself; guarded by discarding_
  std::atomic<int> accesses_{0};  // waits for data in flight
  std::atomic<bool> retire_{false};
  const uint8_t advice_;

  mutable SmallMutex mutex_;
  State state_ = State::kQuiescent;
  unsigned uses_ = 0;
  std::atomic<bool> relinquished_{false};    // written under mutex_
  bool withdraw_wanted_ = false;             // the cache ends while the cookie invalidates
  bool invalidate_wanted_ = false;           // asked for while the cookie was looked up
  std::shared_ptr<CookieCore> predecessor_;  // of the same key, still being relinquished
  std::shared_ptr<Object> object_;
  std::unique_ptr<const proto::MerkleProof> proof_;  // what the object must be
  Waiters waiters_;                                  // for the lookup
  std::forward_list<UniqueFunction<void()>> when_dropped_;
};

}  // namespace hydrant::cachefiles
