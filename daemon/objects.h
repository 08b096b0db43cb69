// Objects of the cache that mounts and ingests use. The engine gives a key out once; here it is shared.
#pragma once

#include <condition_variable>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <stop_token>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/error.h"
#include "cachefiles/engine.h"

namespace hydrant::daemon {

// How long somebody waits for something: a deadline, or that nobody wants it any more.
struct Patience {
  Deadline deadline;
  std::stop_token stop;
};

struct ObjectKey {
  std::string volume;  // "erofs,<domain or fsid>"
  std::string id;
  auto operator<=>(const ObjectKey&) const = default;
};

class Objects;

// An object in use: its cookie is active as long as this lives, then it is relinquished and its data kept.
// Thread-safe. Shared by mounts, ingests, and the blob files that the kernel has open.
class Object {
 public:
  ~Object();
  const ObjectKey& key() const { return key_; }
  cachefiles::Cookie& cookie() const { return *cookie_; }
  std::shared_ptr<cachefiles::Cookie> cookie_ptr() const { return cookie_; }

 private:
  friend class Objects;
  struct Shared;
  Object(std::shared_ptr<Shared> shared, ObjectKey key) : shared_(std::move(shared)), key_(std::move(key)) {}

  const std::shared_ptr<Shared> shared_;  // the table; it outlives `Objects` when the kernel still has a blob open
  const ObjectKey key_;
  std::shared_ptr<cachefiles::Cookie> cookie_;  // set before status_, then constant
  std::optional<int> status_;                   // of the lookup; the table's lock
  bool ingesting_ = false;                      // somebody fills the whole of it; the table's lock
  bool mounted_ = false;                        // given out by `use`; the table's lock
  bool retired_ = false;                        // relinquished already; the table's lock
  bool adopted_ = false;                        // in use whatever the lookup said; the table's lock
  unsigned refused_for_ = 0;                    // calls of `retry` that have found it refused; the table's lock
};

// Thread-safe. Calls the engine without its lock.
class Objects {
 public:
  explicit Objects(cachefiles::Engine& engine);

  // Waits until the user daemon answered the OPEN, and until nobody ingests it. kTooSlow: no answer; kBusy: an ingest
  // did not end in time; kGone: the ingest failed; kIo: the user daemon refused; kCancelled. With a `proof` it has
  // nothing that does not match; others as of prove().
  Result<std::shared_ptr<Object>> use(const ObjectKey& key, const Patience& patience,
                                      const std::optional<proto::MerkleProof>& proof = std::nullopt);

  // For what a predecessor had in use: waits for nothing. The object's readers wait for the user daemon's answer, and
  // when that is no, `retry` asks again: at the 1st, 2nd, 4th and so on of its calls, later at each 64th. With a
  // `proof` nobody reads what does not match it.
  Result<std::shared_ptr<Object>> adopt(const ObjectKey& key, const std::optional<proto::MerkleProof>& proof);
  void retry();

  cachefiles::Engine& engine() const { return engine_; }

  // Until the cache has closed each of them, or `deadline`: nobody uses it then, and it may be culled.
  void wait_until_closed(const std::vector<ObjectKey>& keys, Deadline deadline) const;

  // Those that are in use now.
  std::vector<std::shared_ptr<Object>> all() const;

  // As `use`; but the object belongs to the caller alone until one of the next two. kBusy when a mount uses it and it
  // is not complete: bytes that are verified only at the end must have no readers.
  Result<std::shared_ptr<Object>> begin_ingest(const ObjectKey& key, const Patience& patience);
  void end_ingest(Object& object);
  // Deletes the object; whoever waits for it is told. kTooSlow when the engine did not do it in time.
  Result<> abort_ingest(Object& object, Deadline deadline);

 private:
  Result<std::shared_ptr<Object>> get(const ObjectKey& key, const Patience& patience,
                                      const std::optional<proto::MerkleProof>& proof);
  Result<> start(const std::shared_ptr<Object>& object, const Patience& patience,
                 const std::optional<proto::MerkleProof>& proof);
  void look_up(const std::shared_ptr<Object>& object);
  Result<std::shared_ptr<Object>> claim(const ObjectKey& key, const Patience& patience, bool ingest,
                                        const std::optional<proto::MerkleProof>& proof);

  cachefiles::Engine& engine_;
  const std::shared_ptr<Object::Shared> shared_;
};

// From now on the object has nothing that does not match `proof` (Cookie::prove); nothing happens without one, or where
// the engine does not verify. kBusy: a mount relies on another proof; kCorrupt: the object cannot match; kNotFound: its
// leaves are missing.
Result<> prove(const Object& object, const std::optional<proto::MerkleProof>& proof);

// Makes `range` present. kTooSlow, kCancelled, kIo.
Result<> ensure(const Object& object, ByteRange range, const Patience& patience);

}  // namespace hydrant::daemon
