#include "daemon/objects.h"

#include <algorithm>
#include <bit>
#include <cerrno>
#include <set>

#include "base/log.h"

namespace hydrant::daemon {

struct Object::Shared {
  std::mutex mutex;
  std::condition_variable_any changed;  // a lookup's status, an ingest's end, a key given back
  std::map<ObjectKey, std::weak_ptr<Object>> objects;
  std::multiset<ObjectKey> closing;  // given back; the cache writes what it owes and closes the file
  std::map<std::string, std::weak_ptr<cachefiles::Volume>> volumes;
};

namespace {

constexpr unsigned kMostPauses = 64;  // between two lookups of what is refused again and again

Error gave_up(const Patience& patience, const ObjectKey& key, Code code, const std::string& what) {
  if (patience.stop.stop_requested()) return Error{.code = Code::kCancelled, .what = "nobody waits any more"};
  return Error{.code = code, .what = "object " + key.id + ": " + what};
}

}  // namespace

Object::~Object() {
  if (cookie_) {
    if (!retired_) {
      cookie_->unuse();
      std::unique_lock lock(shared_->mutex);
      auto closing = shared_->closing.insert(key_);
      lock.unlock();
      cookie_->relinquish(false, [shared = shared_, closing] {
        std::lock_guard closed(shared->mutex);
        shared->closing.erase(closing);
        shared->changed.notify_all();
      });
    }
    cookie_.reset();  // the key is free from here on
  }
  std::lock_guard lock(shared_->mutex);
  auto at = shared_->objects.find(key_);
  if (at != shared_->objects.end() && at->second.expired()) shared_->objects.erase(at);
  shared_->changed.notify_all();
}

Objects::Objects(cachefiles::Engine& engine) : engine_(engine), shared_(std::make_shared<Object::Shared>()) {}

Result<> Objects::start(const std::shared_ptr<Object>& object, const Patience& patience,
                        const std::optional<proto::MerkleProof>& proof) {
  const ObjectKey& key = object->key();
  // kBusy: the last user is just giving the key back.
  auto acquire = [&](auto&& attempt) -> decltype(attempt()) {
    for (;;) {
      auto made = attempt();
      if (made || made.error().code != Code::kBusy) return made;
      std::unique_lock lock(shared_->mutex);
      auto slice = std::min(patience.deadline.at(), Deadline::after(std::chrono::milliseconds(20)).at());
      shared_->changed.wait_until(lock, patience.stop, slice, [] { return false; });
      if (patience.stop.stop_requested() || patience.deadline.passed())
        return fail(gave_up(patience, key, Code::kBusy, "still in use by an earlier mount"));
    }
  };
  HYDRANT_TRY(auto volume, acquire([&]() -> Result<std::shared_ptr<cachefiles::Volume>> {
                {
                  std::lock_guard lock(shared_->mutex);
                  if (auto known = shared_->volumes[key.volume].lock()) return known;
                }
                auto made = engine_.acquire_volume(key.volume);
                std::lock_guard lock(shared_->mutex);
                std::erase_if(shared_->volumes, [](auto& each) { return each.second.expired(); });
                if (made) shared_->volumes[key.volume] = *made;
                return made;
              }));
  HYDRANT_TRY(auto cookie, acquire([&] { return engine_.acquire_cookie(volume, as_bytes(key.id)); }));
  object->cookie_ = std::move(cookie);
  HYDRANT_TRY_VOID(prove(*object, proof));
  look_up(object);
  return {};
}

void Objects::look_up(const std::shared_ptr<Object>& object) {
  // Weak: whoever gives up drops the object, and with it the request that nobody answers.
  object->cookie_->use([weak = std::weak_ptr(object), shared = shared_](int status) {
    auto alive = weak.lock();
    if (!alive) return;
    std::lock_guard lock(shared->mutex);
    alive->status_ = status;
    shared->changed.notify_all();
  });
}

Result<std::shared_ptr<Object>> Objects::adopt(const ObjectKey& key, const std::optional<proto::MerkleProof>& proof) {
  std::shared_ptr<Object> object;
  {
    std::lock_guard lock(shared_->mutex);
    auto& known = shared_->objects[key];
    if (auto there = known.lock()) return there;
    object = std::shared_ptr<Object>(new Object(shared_, key));
    object->adopted_ = object->mounted_ = true;
    known = object;
  }
  HYDRANT_TRY_VOID(start(object, {Deadline::after(std::chrono::seconds(1)), {}}, proof));
  return object;
}

void Objects::retry() {
  std::vector<std::shared_ptr<Object>> refused;
  {
    std::lock_guard lock(shared_->mutex);
    for (auto& [key, weak] : shared_->objects) {
      auto object = weak.lock();
      if (!object || !object->adopted_ || !object->status_ || *object->status_ == 0) continue;
      const unsigned times = ++object->refused_for_;
      if (!std::has_single_bit(times) && times % kMostPauses != 0) continue;
      object->status_.reset();
      refused.push_back(std::move(object));
    }
  }
  for (auto& object : refused) {
    log::info("object-looked-up-again", {{"id", object->key().id}});
    object->cookie().unuse();
    look_up(object);
  }
}

Result<std::shared_ptr<Object>> Objects::get(const ObjectKey& key, const Patience& patience,
                                             const std::optional<proto::MerkleProof>& proof) {
  std::shared_ptr<Object> object;
  bool first = false;
  {
    std::lock_guard lock(shared_->mutex);
    auto& known = shared_->objects[key];
    object = known.lock();
    if (!object) {
      object = std::shared_ptr<Object>(new Object(shared_, key));
      known = object;
      first = true;
    }
  }
  if (first) {
    if (auto started = start(object, patience, proof); !started) {
      std::lock_guard lock(shared_->mutex);
      object->status_ = -to_errno(started.error().code);
      shared_->objects.erase(key);
      shared_->changed.notify_all();
      return fail(std::move(started).error());
    }
  }
  std::unique_lock lock(shared_->mutex);
  bool known = shared_->changed.wait_until(lock, patience.stop, patience.deadline.at(),
                                           [&] { return object->status_.has_value(); });
  if (!known) {
    lock.unlock();
    return fail(gave_up(patience, key, Code::kTooSlow,
                        "no user daemon answered its OPEN in time; does hydrant-fetchd run under this root?"));
  }
  int status = *object->status_;
  if (status == 0) return object;
  // The next one starts afresh; but what the kernel has open keeps its object.
  auto at = shared_->objects.find(key);
  if (at != shared_->objects.end() && at->second.lock() == object && !object->adopted_) shared_->objects.erase(at);
  lock.unlock();
  return fail(sys_error(-status, "object " + key.id + ": the user daemon or the cache refused it"));
}

Result<std::shared_ptr<Object>> Objects::claim(const ObjectKey& key, const Patience& patience, bool ingest,
                                               const std::optional<proto::MerkleProof>& proof) {
  HYDRANT_TRY(auto object, get(key, patience, proof));
  bool complete = ingest && object->cookie().complete();
  std::unique_lock lock(shared_->mutex);
  bool free = shared_->changed.wait_until(lock, patience.stop, patience.deadline.at(),
                                          [&] { return !object->ingesting_ || object->retired_; });
  bool retired = object->retired_;
  bool taken = ingest && object->mounted_ && !complete;
  if (free && !retired && !taken) (ingest ? object->ingesting_ : object->mounted_) = true;
  lock.unlock();
  if (retired) return fail(Code::kGone, "object " + key.id + ": the request that filled it failed; try again");
  if (!free) return fail(gave_up(patience, key, Code::kBusy, "is being filled by another request; try again later"));
  if (taken) return fail(Code::kBusy, "object " + key.id + " is in use by a mount; unmount that first");
  return object;
}

Result<std::shared_ptr<Object>> Objects::use(const ObjectKey& key, const Patience& patience,
                                             const std::optional<proto::MerkleProof>& proof) {
  HYDRANT_TRY(auto object, claim(key, patience, false, proof));
  // Where others use it already the proof was not asked for at its lookup.
  HYDRANT_TRY_VOID(prove(*object, proof));
  return object;
}

Result<std::shared_ptr<Object>> Objects::begin_ingest(const ObjectKey& key, const Patience& patience) {
  return claim(key, patience, true, std::nullopt);
}

void Objects::end_ingest(Object& object) {
  std::lock_guard lock(shared_->mutex);
  object.ingesting_ = false;
  shared_->changed.notify_all();
}

Result<> Objects::abort_ingest(Object& object, Deadline deadline) {
  {
    std::lock_guard lock(shared_->mutex);
    object.retired_ = true;
    auto at = shared_->objects.find(object.key_);
    if (at != shared_->objects.end() && at->second.lock().get() == &object) shared_->objects.erase(at);
    shared_->changed.notify_all();
  }
  auto withdrawn = std::make_shared<bool>(false);  // shared with the callback; the table's lock
  object.cookie_->unuse();
  object.cookie_->relinquish(true, [withdrawn, shared = shared_] {
    std::lock_guard lock(shared->mutex);
    *withdrawn = true;
    shared->changed.notify_all();
  });
  std::unique_lock lock(shared_->mutex);
  if (!shared_->changed.wait_until(lock, deadline.at(), [&] { return *withdrawn; }))
    return fail(Code::kTooSlow, "object " + object.key_.id + " was not deleted in time");
  return {};
}

std::vector<std::shared_ptr<Object>> Objects::all() const {
  std::vector<std::shared_ptr<Object>> out;
  std::lock_guard lock(shared_->mutex);
  for (const auto& [key, object] : shared_->objects)
    if (auto alive = object.lock()) out.push_back(std::move(alive));
  return out;
}

void Objects::wait_until_closed(const std::vector<ObjectKey>& keys, Deadline deadline) const {
  std::unique_lock lock(shared_->mutex);
  shared_->changed.wait_until(lock, deadline.at(), [&] {
    return std::ranges::none_of(
        keys, [&](const ObjectKey& key) { return shared_->objects.contains(key) || shared_->closing.contains(key); });
  });
}

Result<> prove(const Object& object, const std::optional<proto::MerkleProof>& proof) {
  const int err = proof ? object.cookie().prove(*proof) : 0;
  const std::string name = "object " + object.key().id;
  switch (err) {
    case 0:
    case -EOPNOTSUPP: return {};
    case -EEXIST: return fail(Code::kBusy, name + " is mounted with another Merkle root; unmount that first");
    case -ESTALE: return fail(Code::kCorrupt, name + " has another size than its Merkle root is for");
    case -ENODATA: return fail(Code::kNotFound, name + ": the leaves of its Merkle root are missing or damaged");
    default: return fail(sys_error(-err, name + ": prove"));
  }
}

Result<> ensure(const Object& object, ByteRange range, const Patience& patience) {
  struct Outcome {
    std::mutex mutex;
    std::condition_variable_any known;
    std::optional<int> status;
  };
  auto outcome = std::make_shared<Outcome>();  // shared with the callback, which may come after we gave up
  auto wait = object.cookie().ensure(range, [outcome](int status) {
    std::lock_guard lock(outcome->mutex);
    outcome->status = status;
    outcome->known.notify_all();
  });
  std::unique_lock lock(outcome->mutex);
  if (!outcome->known.wait_until(lock, patience.stop, patience.deadline.at(),
                                 [&] { return outcome->status.has_value(); })) {
    lock.unlock();
    if (wait) wait->cancel();
    return fail(gave_up(patience, object.key(), Code::kTooSlow, "the user daemon did not supply it in time"));
  }
  if (*outcome->status) return fail(sys_error(-*outcome->status, "object " + object.key().id + ": fill"));
  return {};
}

}  // namespace hydrant::daemon
