// The life of an object between its lookup and its attachment (spec 7.2); its end is in withdraw.cpp.
#include "cachefiles/object.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/xattr.h>

#include "base/log.h"
#include "cachefiles/cache.h"
#include "cachefiles/cookie.h"
#include "cachefiles/engine_impl.h"
#include "cachefiles/trace.h"
#include "proto/cachefiles_name.h"

namespace hydrant::cachefiles {

using trace::Point;

namespace {
// Numbers objects for the trace, as the kernel's debug id does.
std::atomic<uint32_t> next_debug_id{1};
}  // namespace

Object::Object(std::shared_ptr<Cache> cache, std::shared_ptr<CookieCore> cookie, std::shared_ptr<CacheVolume> volume,
               uint8_t fanout)
    : cache_(std::move(cache)),
      cookie_(std::move(cookie)),
      volume_(std::move(volume)),
      fanout_(fanout),
      debug_id_(next_debug_id.fetch_add(1, std::memory_order_relaxed)) {
  trace::event(Point::kRef, {{"object", debug_id_}, {"name", name()}, {"reason", "new"}});
}

Object::~Object() { trace::event(Point::kRef, {{"object", debug_id_}, {"name", name()}, {"reason", "free"}}); }

const std::string& Object::volume_key() const { return cookie_->volume().key(); }
Bytes Object::key() const { return cookie_->key(); }
std::string Object::name() const { return proto::object_name(key()).value(); }

void Object::look_up(Gate::Pass pass, UniqueFunction<void(int)> done) {
  trace::Step step("look_up");
  lookup_ = std::make_unique<Lookup>(Lookup{std::move(pass), std::move(done)});
  int err = find_file();
  if (err) return finish_lookup(err);
  open_then(&Object::opened);
}

int Object::find_file() {
  auto fanout = volume_->open_fanout(fanout_);
  if (!fanout) return -ENOBUFS;
  struct stat stat;
  int err = inject_read();
  if (!err && ::fstatat(fanout->get(), name().c_str(), &stat, AT_SYMLINK_NOFOLLOW) != 0) err = -errno;
  trace::event(Point::kLookup,
               {{"object", debug_id_}, {"name", name()}, {"inode", err ? 0 : stat.st_ino}, {"errno", -err}});
  if (err == -EIO) cache_->io_error("lookup", err, subject());
  if (err == -ENOENT) return create_file();
  if (err) return trace::vfs_error("lookup", err, subject());
  if (!S_ISREG(stat.st_mode)) {
    if ((err = cache_->bury(fanout->get(), name(), stat, "weird"))) return err;
    return create_file();
  }
  return open_existing(fanout->get(), stat);
}

int Object::open_existing(int directory, const struct stat& stat) {
  InodeId id = InodeId::of(stat);
  if (!cache_->in_use().mark(id)) {
    trace::event(Point::kMarkFailed, {{"object", debug_id_}, {"inode", id.inode}});
    log::warn("cachefiles.object_in_use", {{"name", name()}});
    return -EBUSY;
  }
  trace::event(Point::kMarkActive, {{"object", debug_id_}, {"inode", id.inode}});
  cache_->engine().descriptors().make_room();
  Fd fd(::openat(directory, name().c_str(), O_RDWR | O_NOFOLLOW | O_CLOEXEC));
  struct stat opened;
  if (!fd || ::fstat(fd.get(), &opened) != 0 || InodeId::of(opened) != id) {
    int err = fd ? -ESTALE : -errno;
    cache_->in_use().unmark(id);
    return trace::vfs_error("open", err, {debug_id_, id.inode});
  }
  found_ = std::make_shared<BackingFile>(cache_->engine().descriptors(), std::move(fd), id, cache_->presence(),
                                         cache_->block_size());
  existing_ = true;
  return 0;
}

int Object::create_file() {
  cookie_->set_creating();
  existing_ = false;
  if (cache_->check_space(1, 0, Cache::Reason::kCreate)) return -ENOBUFS;
  auto fanout = volume_->open_fanout(fanout_);
  if (!fanout) return -ENOBUFS;
  int err = inject_write();
  Fd fd;
  if (!err) {
    cache_->engine().descriptors().make_room();
    fd = Fd(::openat(fanout->get(), ".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600));
    if (!fd) err = -errno;
  }
  if (err == -EIO) cache_->io_error("create a file", err, {debug_id_});
  if (err) return trace::vfs_error("tmpfile", err, {debug_id_});
  struct stat stat;
  if (::fstat(fd.get(), &stat) != 0) return -errno;
  InodeId id = InodeId::of(stat);
  trace::event(Point::kTmpfile, {{"object", debug_id_}, {"inode", id.inode}});
  if (!cache_->in_use().mark(id)) return -EBUSY;
  trace::event(Point::kMarkActive, {{"object", debug_id_}, {"inode", id.inode}});
  found_ = std::make_shared<BackingFile>(cache_->engine().descriptors(), std::move(fd), id, cache_->presence(),
                                         cache_->block_size());
  return found_->make_identity();
}

// Asks the daemon for an OPEN, unless the object is open already; then goes on with `next` on a worker.
void Object::open_then(void (Object::*next)(int)) {
  auto go_on = [self = shared_from_this(), next](int result) {
    self->cache_->submit([self, next, result] { (*self.*next)(result); });
  };
  if (!cache_->has(Cache::kOnDemand) || cache_->requests().object_open(*this)) return go_on(0);
  if (!(cookie_->advice() & kAdviceWantCacheSize)) {
    log::warn("cachefiles.open_refused", {{"name", name()}, {"why", "the consumer does not take the daemon's size"}});
    return go_on(-EINVAL);
  }
  auto request = std::make_shared<Request>();
  request->opcode = Opcode::kOpen;
  request->object = shared_from_this();
  request->done = go_on;
  if (int err = cache_->send(request)) {
    cache_->requests().open_failed(*this);
    go_on(err);
  }
}

void Object::opened(int result) {
  if (result != 0) return finish_lookup(result);
  if (!existing_) return finish_lookup(attach());
  int verdict = check_label();
  if (verdict == 0) return finish_lookup(attach());
  if (verdict != -ESTALE) return finish_lookup(verdict);
  // The daemon's handle stays: it now means the new file.
  release_file();
  if (int err = create_file()) return finish_lookup(err);
  open_then(&Object::opened_for_new_file);
}

void Object::opened_for_new_file(int result) { finish_lookup(result ? result : attach()); }

// 0, -ESTALE, or the errno of the read.
int Object::check_label() {
  Buffer label(proto::kObjectLabelSize + cookie_->aux().size());
  ssize_t got = -1;
  int err = inject_read();
  if (!err) {
    got = ::fgetxattr(found_->open().get(), proto::kLabelName, label.data(), label.size());
    if (got < 0) err = -errno;
  }
  if (err == -EIO) cache_->io_error("read a label", err, subject());
  trace::vfs_error("getxattr", err, subject());
  if ((err == -ENODATA || err == -ERANGE) && cache_->engine().options().replace_unlabelled) return -ESTALE;
  if (err) return err;
  label.resize(static_cast<size_t>(got));
  auto verdict = proto::check_object_label(label, cookie_->size(), cookie_->aux());
  trace::event(Point::kCoherency,
               {{"object", debug_id_}, {"verdict", proto::to_string(verdict)}, {"inode", found_->id().inode}});
  if (verdict == proto::Coherency::kOk) return 0;
  return -ESTALE;
}

int Object::write_label(proto::Content content) {
  auto label = proto::encode_object_label(cookie_->size(), content, cookie_->aux());
  auto fd = found_->open();
  if (!fd) return fd.error();
  int err = inject_write();
  if (!err && ::fsetxattr(fd.get(), proto::kLabelName, label.data(), label.size(), 0) != 0) err = -errno;
  if (err && err != -ENOMEM) cache_->io_error("write a label", err, subject());
  return trace::vfs_error("setxattr", err, subject());
}

int Object::attach() {
  uint64_t size = cookie_->size();
  if (existing_) {
    found_->load_map(cache_->maps_directory(), size,
                     {.clean = cache_->was_clean(), .proofs = cache_->engine().options().verify});
    const struct timespec times[2] = {{0, UTIME_NOW}, {0, UTIME_OMIT}};
    ::futimens(found_->open().get(), times);  // culling goes by the time of last access
  }
  if (int err = adjust_length(size)) return err;
  needs_update_ = !existing_;
  named_ = existing_;
  if (existing_) found_->descriptor().let_close(weak_reopener());
  if (!existing_ && cache_->naming() == Naming::kFromBirth) {
    if (int err = write_label(proto::Content::kNoData)) return err;
    if (int err = link_new_file()) return err;
  }
  if (int err = prove_found()) return err;
  set_file(found_);
  return 0;
}

// What the consumer requires of the object, before anybody can read it or write to it.
int Object::prove_found() {
  auto proof = cookie_->proof();
  if (!proof) return 0;
  if (proof->shape.device_size != cookie_->size()) {
    log::error("cachefiles.proof_of_another_size",
               {{"name", name()}, {"size", cookie_->size()}, {"proof", proof->shape.device_size}});
    return -ESTALE;
  }
  return found_->prove(cache_->maps_directory(), *proof, cache_->engine().options().leaves, BackingFile::Use::kAlone);
}

// The file is as long as the object, rounded up to a block; running out of space here does no harm.
int Object::adjust_length(uint64_t size) {
  struct stat stat;
  auto fd = found_->open();
  if (!fd) return fd.error();
  if (::fstat(fd.get(), &stat) != 0) return -errno;
  uint64_t target = round_up(size, kBlockSize), length = static_cast<uint64_t>(stat.st_size);
  if (size > INT64_MAX - kBlockSize) return -EFBIG;
  if (length == target) return 0;
  trace::event(Point::kTrunc, {{"object", debug_id_}, {"inode", found_->id().inode}, {"from", length}, {"to", target}});
  int err = inject_write();
  if (!err && length > target) err = found_->shrink(size);
  if (!err && length < target) {
    if (length % kBlockSize && ::ftruncate(fd.get(), off_t(round_down(length, kBlockSize))) != 0) err = -errno;
    if (!err && ::ftruncate(fd.get(), off_t(target)) != 0) err = -errno;
  }
  if (err == -EIO) cache_->io_error("set the length of a file", err, subject());
  trace::vfs_error("truncate", err, subject());
  if (err) log::warn("cachefiles.length_not_set", {{"name", name()}, {"size", size}, {"errno", -err}});
  return err == -EFBIG || err == -EINVAL || err == -EIO ? err : 0;
}

// Gives the unnamed file its name. What stands under the name is older and goes first; a crash in between loses only
// that.
int Object::link_new_file() {
  auto fanout = volume_->open_fanout(fanout_);
  if (!fanout) return -ENOENT;
  auto fd = found_->open();
  std::string self = "/proc/self/fd/" + std::to_string(fd.get());
  for (int attempt = 0; attempt < 2; ++attempt) {
    int err = inject_read();
    if (!err && ::linkat(AT_FDCWD, self.c_str(), fanout->get(), name().c_str(), AT_SYMLINK_FOLLOW) != 0) err = -errno;
    if (!err) break;
    if (err != -EEXIST || attempt > 0) return trace::vfs_error("link", err, subject());
    struct stat stat;
    if (::fstatat(fanout->get(), name().c_str(), &stat, AT_SYMLINK_NOFOLLOW) != 0) continue;
    if (InodeId::of(stat) == found_->id()) break;
    if ((err = cache_->bury(fanout->get(), name(), stat, "stale"))) return err;
  }
  named_ = true;
  found_->descriptor().let_close(weak_reopener());
  trace::event(Point::kLink, {{"object", debug_id_}, {"name", name()}, {"inode", found_->id().inode}});
  return 0;
}

void Object::set_file(std::shared_ptr<BackingFile> file) {
  cookie_->publish(file);
  std::lock_guard lock(file_mutex_);
  file_ = std::move(file);
}

void Object::finish_lookup(int result) {
  // The pass goes last: until then the cache waits, and finds the cookie in its new state afterwards.
  auto lookup = std::move(lookup_);
  if (result) {
    log::debug("cachefiles.lookup_failed", {{"name", name()}, {"errno", -result}});
    release_file();
  }
  lookup->done(result);
}

void Object::release_file() {
  set_file(nullptr);
  auto file = std::move(found_);
  if (!file) return;
  trace::event(Point::kMarkInactive, {{"object", debug_id_}, {"inode", file->id().inode}});
  cache_->in_use().unmark(file->id());
}

void Object::reopen() {
  auto request = std::make_shared<Request>();
  request->opcode = Opcode::kOpen;
  request->object = shared_from_this();
  request->reopen = true;
  request->done = [self = shared_from_this()](int result) {
    if (result == -ESTALE) log::warn("cachefiles.reopen_refused", {{"name", self->name()}, {"why", "another size"}});
    bool again = false;
    auto refused = self->cache_->requests().reopen_finished(*self, result, &again);
    fail_all(std::move(refused));
    if (again) self->reopen();
    self->cache_->wake();
  };
  if (cache_->send(request) != 0) cache_->requests().open_failed(*this);
}

void Object::drop() {
  auto dropped = cache_->requests().drop(*this);
  if (dropped.empty()) return;
  fail_all(std::move(dropped));
  cache_->wake();
}

// The name is as good as the descriptor: while the file is marked in use nobody of ours takes it away, and whoever else
// does is found out.
Fd Object::open_again() {
  std::string path = proto::fanout_directory(fanout_) + "/" + name();
  return Fd(::openat(volume_->directory(), path.c_str(), O_RDWR | O_NOFOLLOW | O_CLOEXEC));
}

Proving Object::proving() const { return {cache_->engine().verifier(), cache_->maps_directory(), *this}; }

int Object::prove(const proto::MerkleProof& proof) {
  auto file = this->file();
  if (!file) return -ENOBUFS;
  if (proof.shape.device_size != cookie_->size()) return -ESTALE;
  int err = file->prove(cache_->maps_directory(), proof, cache_->engine().options().leaves, BackingFile::Use::kShared);
  if (!err && file->has_unsaved() && file->claim_saving()) cache_->remember_unsaved(shared_from_this());
  return err;
}

bool Object::find(BackingFile& file, ByteRange window) {
  const bool found = file.find(proving(), window);
  if (file.has_unsaved() && file.claim_saving()) cache_->remember_unsaved(shared_from_this());
  return found;
}

BackingFile::Scrubbed Object::scrub(uint64_t from, uint64_t most) {
  auto file = this->file();
  if (!file) return {.next = UINT64_MAX};
  auto out = file->scrub(proving(), from, most);
  if (file->has_unsaved() && file->claim_saving()) cache_->remember_unsaved(shared_from_this());
  return out;
}

void Object::save_map() {
  auto file = this->file();
  if (!file || !named_) return;
  int err = file->save_map(cache_->disk(), cache_->maps_directory(), [this] { return cookie_->size(); });
  if (err) cache_->set_broken();
  // The cache is dead then: nobody saves again.
  if (err == -EIO) return cache_->io_error("sync a file", err, {debug_id_, file->id().inode});
  if (file->has_unsaved() && file->claim_saving()) cache_->remember_unsaved(shared_from_this());
}

}  // namespace hydrant::cachefiles
