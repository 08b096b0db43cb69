#include "daemon/stored_marks.h"

#include "base/log.h"

namespace hydrant::daemon {

namespace {
constexpr const char* kGroup = "fanotify";  // daemon/keeper/guard.h knows them
constexpr const char* kFiles = "fanotify-files";
constexpr const char* kEvents = "fanotify-events";
}  // namespace

front::MarkedFiles* StoredMarks::now() {
  std::lock_guard lock(mutex_);
  return files_.get();
}

Result<front::MarkedFiles*> StoredMarks::get() {
  std::lock_guard lock(mutex_);
  if (!store_.held_elsewhere())
    return fail(Code::kUnsupported,
                "fanotify needs somebody who outlives hydrantd, or its readers would see zeros: run hydrantd under "
                "hydrant-keeper, or use --front fuse");
  if (!files_) {
    HYDRANT_TRY(files_, front::MarkedFiles::create(options_));
    put();
  }
  return files_.get();
}

front::HeldMarks StoredMarks::left(DescriptorStore& store) {
  front::HeldMarks held{.group = store.take(kGroup), .journal = store.take(kFiles), .events = store.take(kEvents)};
  if (!held.events) return held;
  held.read_pending();
  store.keep_off(held.pending);
  held.reserve();
  return held;
}

Result<> StoredMarks::take_over(front::HeldMarks held, const front::MarkedFiles::CookieOf& cookie_of) {
  std::lock_guard lock(mutex_);
  HYDRANT_TRY(files_, front::MarkedFiles::take_over(options_, std::move(held), cookie_of));
  put();
  return {};
}

// The group last: whoever finds it finds the others, too.
void StoredMarks::put() {
  front::HeldMarks ours = files_->held();
  store_.put(kFiles, std::move(ours.journal));
  store_.put(kEvents, std::move(ours.events));
  store_.put(kGroup, std::move(ours.group));
}

void StoredMarks::stop() {
  std::lock_guard lock(mutex_);
  if (files_) files_->stop();
}

void StoredMarks::leave_to_the_holder() {
  std::lock_guard lock(mutex_);
  if (!files_) return;
  files_->collect();
  if (!files_->in_use()) return;
  log::warn("marked-files-left", {{"why", "mounts that were taken down lazily are still read; they get EIO"}});
  for (const char* name : {kGroup, kFiles, kEvents}) store_.leave(name);
}

}  // namespace hydrant::daemon
