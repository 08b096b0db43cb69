// The fanotify front: backing files that the kernel reads by itself, and asks us before each read that misses its page
// cache. What is complete and durable is asked for no more.
//
// It fails open: when the last descriptor of the group closes, the kernel reads holes as zeros. So somebody else must
// hold `Held` as long as a mount may live (daemon/keeper/README.md), and every rule of docs/decisions/017-fanotify.md
// is there because of that.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/error.h"
#include "base/fd.h"
#include "cachefiles/engine.h"
#include "front/fuse/blob_fs.h"
#include "front/fuse/touches.h"
#include "proto/handover.h"

namespace hydrant::front {

struct MarkedFilesOptions {
  Duration read_limit = std::chrono::seconds(60);  // a miss that took longer gets EIO; 1 ms .. 1 h, restart
};

// Since creation. An event is counted once, under the way it ended.
struct MarkedFilesStat {
  uint64_t hits = 0;      // let through at once
  uint64_t misses = 0;    // let through after the user daemon supplied the bytes
  uint64_t errors = 0;    // EIO: not supplied, or of a file that is not ours
  uint64_t too_slow = 0;  // EIO: read_limit passed
  uint64_t waiting = 0;   // now
  uint64_t files = 0;     // that are marked, now
};

// Everything that keeps the guard of the files up.
struct HeldMarks {
  Fd group;
  Fd journal;  // proto/handover.h: a slot for each use of a file
  Fd events;   // proto/handed_events.h

  // Of a predecessor: the numbers of the events that it had in hand, and those of them that we have occupied.
  std::set<int> pending{}, reserved{};

  explicit operator bool() const { return group && journal && events; }

  // Both at the very start of a process, with whatever is open kept off the pending numbers in between. The kernel
  // knows an event by the number that its descriptor had in the dead process; an answer is safe only while no new event
  // can get that number here. What anything else has by then cannot be answered, and its reader gets EIO.
  void read_pending();
  void reserve();
};

// Thread-safe.
class MarkedFiles {
 public:
  class File;  // one backing file under guard

  // kUnsupported, kDenied.
  static Result<std::unique_ptr<MarkedFiles>> create(MarkedFilesOptions options);

  // Goes on where a dead predecessor stopped: what it had read and not answered is answered. `cookie_of` as of BlobFs.
  // Files of the predecessor that it does not yield, or that the record does not tell, are denied from here on.
  using CookieOf = BlobFs::CookieOf;
  static Result<std::unique_ptr<MarkedFiles>> take_over(MarkedFilesOptions options, HeldMarks held,
                                                        const CookieOf& cookie_of);

  // For whoever is to hold it as well.
  HeldMarks held() const;

  // Denies what waits and what comes, but for our own threads', while the engine ends.
  void stop();
  // Where nobody else holds the group, what comes from now on is let through: the owner sees to it that in_use() was
  // false, or that somebody holds it.
  ~MarkedFiles();

  // From now on whoever opens the backing file `file` (its cookie is in use, and kept by this) is served like a reader
  // of the cookie. Before it is mounted: what the kernel has open already stays without guard. Shows by a read of its
  // own that events come. The guard ends when the pointer is gone, and each file system that was told of. kUnsupported,
  // kBusy.
  Result<std::shared_ptr<File>> mark(std::shared_ptr<cachefiles::Cookie> cookie, const Fd& file,
                                     const BlobOrigin& origin);
  // A file that a predecessor marked; null when it marked none with those names.
  std::shared_ptr<File> find(const BlobOrigin& origin) const;
  // Every read of whoever opens it from now on, or opened it while a predecessor had marked it, gets EIO.
  Result<> deny(const Fd& file);

  // The file system whose super block sysfs calls so (erofs-N, a number that is used once) reads the file, for as long
  // as it is there. Before anybody can read through it. kNoSpace past 65536 uses.
  Result<> used_by(const std::shared_ptr<File>& file, const std::string& super);
  static std::vector<Touch> touches(const File& file);
  static bool marked(const File& file);  // false: it is complete, and nobody is asked

  // Whether a read of the file by this thread is asked for; it gets EIO then. At most one byte is read.
  bool asks(const Fd& file, uint64_t offset);

  // Now and then: takes the marks off what is complete and durable, and lets go of what nobody reads any more.
  void collect();
  bool in_use() const;

  MarkedFilesStat stat() const;

  class Server;

 private:
  explicit MarkedFiles(std::shared_ptr<Server> server);
  std::shared_ptr<Server> server_;  // shared with callbacks that the engine still owes
};

}  // namespace hydrant::front
