// The end of an object, and the replacement of its file (spec 6.10, 7.6, 7.7, 7.8).
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/xattr.h>

#include "base/log.h"
#include "cachefiles/cache.h"
#include "cachefiles/cookie.h"
#include "cachefiles/engine_impl.h"
#include "cachefiles/object.h"
#include "cachefiles/trace.h"

namespace hydrant::cachefiles {

// CLOSE first: the daemon learns of the end before its requests fail. Whoever takes the CLOSE out of the table lets the
// withdrawal go on: its delivery, the daemon's last close, or the death of the cache.
void Object::withdraw(UniqueFunction<void()> done) {
  struct Rest {
    std::shared_ptr<Object> self;
    UniqueFunction<void()> done;
    void run() {
      self->cache_->submit_commit([self = self, done = std::move(done)]() mutable {
        if (self->cache_->has(Cache::kOnDemand) && !self->cache_->requests().id_is_zero(*self)) self->drop();
        self->commit();
        done();  // first: a cache without objects has no cookie that is still on its way
        self->cache_->remove_object(self);
      });
    }
  };
  auto rest = std::make_shared<Rest>(Rest{shared_from_this(), std::move(done)});
  if (!cache_->has(Cache::kOnDemand)) return rest->run();
  if (trace::on(trace::Point::kClose) && cache_->requests().object_open(*this))
    trace::write(trace::Point::kClose, {{"object", debug_id_}});
  auto close = std::make_shared<Request>();
  close->opcode = Opcode::kClose;
  close->object = shared_from_this();
  close->done = [rest](int) { rest->run(); };
  if (cache_->send(close) != 0) rest->run();
}

void Object::commit() {
  trace::Step step("commit");
  auto file = this->file();
  if (!file) return release_file();
  struct stat stat;
  bool counted = named_ && ::fstat(file->open().get(), &stat) == 0;
  if (cookie_->retiring() || doomed_) {
    unlink_file();
  } else {
    if (local_write_ || needs_update_) write_label(proto::Content::kNoData);
    if (!named_)
      if (int err = link_new_file()) log::warn("cachefiles.not_named", {{"name", name()}, {"errno", -err}});
    if (named_ && !counted) counted = ::fstat(file->open().get(), &stat) == 0;
    save_map();
  }
  file.reset();
  release_file();
  if (counted) cache_->count_released(static_cast<uint64_t>(stat.st_blocks));
}

// Removes the named file, if the name still means it. The map goes first: it never outlives its file.
void Object::unlink_file() {
  if (!named_) return;
  named_ = false;
  found_->descriptor().keep();
  found_->delete_map(cache_->maps_directory());
  auto fanout = volume_->open_fanout(fanout_);
  struct stat stat;
  if (!fanout || ::fstatat(fanout->get(), name().c_str(), &stat, AT_SYMLINK_NOFOLLOW) != 0) return;
  if (InodeId::of(stat) != found_->id()) return;
  trace::event(trace::Point::kUnlink, {{"object", debug_id_},
                                       {"inode", found_->id().inode},
                                       {"reason", cookie_->retiring() ? "was_retired" : "inval"}});
  int err = inject_remove();
  if (!err && ::unlinkat(fanout->get(), name().c_str(), 0) != 0) err = -errno;
  if (err == -EIO) cache_->io_error("unlink", err, subject());
  trace::vfs_error("unlink", err, subject());
}

int Object::invalidate() {
  auto old = found_;
  int err = create_file();
  if (err) found_ = old;
  if (!err) err = adjust_length(cookie_->size());
  if (!err) err = prove_found();
  // Whatever fails, the old bytes are not found again.
  auto fresh = std::exchange(found_, old);
  unlink_file();
  if (fresh != old) {
    trace::event(trace::Point::kMarkInactive, {{"object", debug_id_}, {"inode", old->id().inode}});
    cache_->in_use().unmark(old->id());
  }
  found_ = std::move(fresh);
  existing_ = named_ = false;
  needs_update_ = true;
  if (!err && cache_->naming() == Naming::kFromBirth) {
    err = write_label(proto::Content::kNoData);
    if (!err) err = link_new_file();
  }
  if (err) {
    doomed_ = true;
    return err;
  }
  set_file(found_);
  return 0;
}

int64_t Object::write_locally(Bytes bytes, uint64_t offset) {
  auto file = this->file();
  if (!file) return -ENOBUFS;
  if (file->proof()) return -EPERM;
  auto asked = make_range(offset, bytes.size());
  if (offset % kBlockSize || !asked || asked->end > ContentMap::kBlocks * kBlockSize) return -EINVAL;
  ByteRange range = align_outward(*asked, kBlockSize);
  trace::event(trace::Point::kWrite,
               {{"object", debug_id_}, {"inode", file->id().inode}, {"start", offset}, {"len", bytes.size()}});
  ++cache_->engine().counters().writes;
  // Until the commit the label says that the file is not what its consumer has: a crash makes it stale.
  if (!local_write_.exchange(true) && named_)
    if (int err = write_label(proto::Content::kDirty)) return err;
  if (!range.empty() && !file->present(range) && cache_->check_space(0, range.size(), Cache::Reason::kWrite)) {
    auto there = file->survey(range);
    bool none = there.kind == BackingFile::Survey::Kind::kHole && there.size >= range.size();
    if (none || there.kind == BackingFile::Survey::Kind::kError) return -ENOBUFS;
    // Partly there: what it holds is given back first, so the write takes no more than it frees.
    if (int err = file->punch(range)) {
      cache_->io_error("punch a hole", err, {debug_id_, file->id().inode});
      return err;
    }
  }
  auto blocks = static_cast<int64_t>(range.size() / cache_->block_size());
  cache_->count_writing(blocks);
  int64_t done = file->write(cache_->disk(), bytes, offset);
  cache_->count_writing(-blocks);
  if (done > 0 && file->claim_saving()) cache_->remember_unsaved(shared_from_this());
  return done;
}

int Object::resize(uint64_t size) {
  uint64_t before = cookie_->size();
  if (size > ContentMap::kBlocks * kBlockSize) return -EFBIG;
  if (size != before && found_->proof()) return -EPERM;  // it proves that size alone
  if (size < before) {
    if (int err = found_->shrink(size)) {
      // An object that is half cut must not be found again.
      ::fremovexattr(found_->open().get(), proto::kLabelName);
      cache_->io_error("cut a file", err, subject());
      return err;
    }
  }
  cookie_->set_size(size);
  needs_update_ = true;
  if (size > before)
    if (int err = adjust_length(size)) return err;
  if (named_ && cache_->naming() == Naming::kFromBirth) {
    if (int err = write_label(proto::Content::kNoData)) return err;
    found_->touch();  // the stored map names the old size
  }
  if (found_->claim_saving()) cache_->remember_unsaved(shared_from_this());
  return 0;
}

}  // namespace hydrant::cachefiles
