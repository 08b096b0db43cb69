#include "fetch/objects.h"

#include <cerrno>

#include "base/log.h"
#include "proto/object_id.h"

namespace hydrant::fetch {

int64_t Objects::open(const OpenRequest& request) {
  const std::string& id = request.cookie_key;
  {
    std::lock_guard lock(mutex_);
    if (auto ingest = ingests_.find(id); ingest != ingests_.end()) {
      ingest->second.handle = request.handle;
      open_[request.object_id] = {id, request.handle, nullptr};
      ingest_opened_.notify_all();
      return static_cast<int64_t>(ingest->second.size);
    }
  }
  auto row = catalogue_.object_called(id);
  if (!row) {
    log::warn("object.unknown", {{"volume", request.volume_key}, {"reason", row.error().what}});
    return row.error().code == Code::kNotFound ? -ENOENT : -to_errno(row.error().code);
  }
  auto filler = Filler::create(shop_, id.substr(0, 12), request.handle, make_origin_(*row), counters(row->id));
  Awaited awaited;
  {
    std::lock_guard lock(mutex_);
    open_[request.object_id] = {id, request.handle, filler};
    if (auto found = prefetches_.extract(id)) awaited = std::move(found.mapped());
  }
  if (!awaited.until.passed()) fetch_ahead(id, filler, std::move(awaited));
  log::debug("object.open", {{"object", id}, {"object_id", request.object_id}, {"size", row->size}});
  return static_cast<int64_t>(row->size);
}

void Objects::read(const ReadRequest& request) {
  OpenObject object;
  {
    std::lock_guard lock(mutex_);
    auto found = open_.find(request.object_id);
    if (found != open_.end()) object = found->second;
  }
  if (!object.handle) {
    // Its handle is closed, so the cache opens the object anew and sends the READ again.
    log::debug("read.closed", {{"object_id", request.object_id}, {"msg_id", request.msg_id}});
    return;
  }
  if (!object.filler) {
    log::warn("read.ingesting", {{"object", object.id}, {"offset", request.range.begin}});
    object.handle->complete(request.msg_id);
    return;
  }
  object.filler->read(request.range, [handle = object.handle, msg_id = request.msg_id](Result<> result) {
    if (!result && result.error().code == Code::kCancelled) return;
    // -EINVAL: the reader was killed meanwhile.
    handle->complete(msg_id);
  });
}

void Objects::fetch_ahead(const std::string& id, const std::shared_ptr<Filler>& filler, Awaited awaited) {
  if (!awaited.wanted.empty()) filler->prefetch(std::move(awaited.wanted));
  if (awaited.all) filler->complete([id] { log::info("object.complete", {{"object", id}}); });
}

void Objects::await(const std::string& id, std::vector<ByteRange> wanted, bool all) {
  constexpr auto kPatience = std::chrono::minutes(1);
  Awaited awaited{std::move(wanted), all, Deadline::after(kPatience)};
  std::shared_ptr<Filler> filler;
  {
    std::lock_guard lock(mutex_);
    for (auto& [object_id, object] : open_)
      if (object.id == id && object.filler) filler = object.filler;
    if (!filler) {
      std::erase_if(prefetches_, [](const auto& each) { return each.second.until.passed(); });
      Awaited& known = prefetches_[id];
      if (!awaited.wanted.empty()) known.wanted = std::move(awaited.wanted);
      known.all |= all;
      known.until = awaited.until;
    }
  }
  if (filler) fetch_ahead(id, filler, std::move(awaited));
}

void Objects::prefetch(const std::string& id, std::vector<ByteRange> wanted) { await(id, std::move(wanted), false); }
void Objects::complete(const std::string& id) { await(id, {}, true); }

void Objects::close(const CloseRequest& request) {
  OpenObject object;
  {
    std::lock_guard lock(mutex_);
    auto found = open_.find(request.object_id);
    if (found == open_.end()) return;
    object = std::move(found->second);
    open_.erase(found);
  }
  if (object.filler) object.filler->close();
}

void Objects::close_all() {
  std::unordered_map<uint32_t, OpenObject> open;
  {
    std::lock_guard lock(mutex_);
    open.swap(open_);
  }
  for (auto& [object_id, object] : open)
    if (object.filler) object.filler->close();
}

void Objects::expire() {
  std::vector<std::shared_ptr<Filler>> fillers;
  {
    std::lock_guard lock(mutex_);
    for (auto& [object_id, object] : open_)
      if (object.filler) fillers.push_back(object.filler);
  }
  for (auto& filler : fillers) filler->expire();
}

std::shared_ptr<Counters> Objects::counters(const std::string& id) {
  std::lock_guard lock(mutex_);
  auto& counters = counters_[id];
  if (!counters) counters = std::make_shared<Counters>();
  return counters;
}

Result<std::unique_ptr<Objects::Ingest>> Objects::expect_ingest(const std::string& id, uint64_t size) {
  std::lock_guard lock(mutex_);
  if (!ingests_.try_emplace(id, Expected{nullptr, size}).second)
    return fail(Code::kBusy, "object " + id + " is being ingested already");
  return std::make_unique<Ingest>(*this, id);
}

Result<std::shared_ptr<ObjectHandle>> Objects::Ingest::handle(Deadline deadline) {
  std::unique_lock lock(objects_.mutex_);
  auto& handle = objects_.ingests_[id_].handle;
  if (!objects_.ingest_opened_.wait_until(lock, deadline.at(), [&] { return handle != nullptr; }))
    return fail(Code::kTooSlow, "the cache did not open object " + id_);
  return handle;
}

// Lets go of the handle: when the object is used later the cache opens it anew, with its true size.
Objects::Ingest::~Ingest() {
  std::shared_ptr<ObjectHandle> handle;
  std::lock_guard lock(objects_.mutex_);
  handle = std::move(objects_.ingests_[id_].handle);
  objects_.ingests_.erase(id_);
  std::erase_if(objects_.open_, [&](const auto& entry) { return entry.second.id == id_ && !entry.second.filler; });
}

}  // namespace hydrant::fetch
