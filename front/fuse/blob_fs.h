// The FUSE front: one fixed, tiny file system, a directory of read-only files, each a cookie's data. EROFS opens these
// files as its devices. A hit is answered from the backing file by the thread that read the request; a miss waits for
// the user daemon without holding a thread.
//
// It fails closed: when this process dies the kernel answers EIO, never zeros (docs/decisions/001-raw-fuse.md). When
// somebody else holds `Held` as well, readers wait instead until a successor takes it over.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "base/clock.h"
#include "base/error.h"
#include "base/fd.h"
#include "cachefiles/engine.h"
#include "front/fuse/touches.h"
#include "proto/handover.h"

namespace hydrant::front {

struct BlobFsOptions {
  std::string mount_point;  // an existing directory; what a dead predecessor left there is removed
  unsigned threads = 2;     // that read /dev/fuse; 1..64, restart
  Duration read_limit = std::chrono::seconds(60);  // a miss that took longer gets EIO; 1 ms .. 1 h, restart
};

// Since creation. A READ is counted once, under the way it ended.
struct BlobFsStat {
  uint64_t hits = 0;         // answered from the backing file at once
  uint64_t misses = 0;       // answered after the user daemon supplied the bytes
  uint64_t errors = 0;       // EIO: not supplied, or the backing file failed
  uint64_t too_slow = 0;     // EIO: read_limit passed
  uint64_t interrupted = 0;  // EINTR: the reader was killed
  uint64_t waiting = 0;      // now
  uint64_t bytes = 0;        // delivered
};

// Everything that keeps a blob file system alive.
struct Held {
  Fd device;   // the open /dev/fuse itself, not a second one
  Fd mount;    // O_PATH, of its root
  Fd journal;  // proto/handover.h

  explicit operator bool() const { return device && mount && journal; }
};

// How a successor finds the cookie of a file again.
struct BlobOrigin {
  std::string volume;
  std::string id;
};

// Thread-safe. Cookies must outlive their engine's callbacks only, not this object: what the kernel still has open is
// kept alive by the file system itself.
class BlobFs {
 public:
  // Mounts the file system. kUnsupported without /dev/fuse, kDenied without root.
  static Result<std::unique_ptr<BlobFs>> create(BlobFsOptions options);

  // Goes on with what a dead predecessor served: the same files under the same nodes, and once more every request that
  // it had read and not answered (Linux >= 6.9; tests/front/takeover_kernel_test.cpp). `cookie_of` yields cookies in
  // use, whose lookup may still be under way. On a failure nothing is touched: dropping `held` ends the file system,
  // and every reader gets EIO. kUnsupported: the kernel cannot ask again, or the predecessor was of a later version.
  using CookieOf = std::function<Result<std::shared_ptr<cachefiles::Cookie>>(const proto::HandedBlob&)>;
  static Result<std::unique_ptr<BlobFs>> take_over(BlobFsOptions options, Held held, const CookieOf& cookie_of);

  // For whoever is to hold it as well. Empty descriptors when the table of this process is full.
  Held held() const;

  // Unmounts (lazily if something is open), fails every waiting read with EIO, joins the threads.
  ~BlobFs();

  // Makes the file `name` (1..255 bytes, no '/') of `size` bytes rounded up to 4096; the bytes past `size` read as
  // zeros. The cookie must be active and in use until the last open of the file is gone, which is when the file system
  // drops its reference. kExists for a name in use, kNoSpace past 65536 files, kInvalid.
  Result<> add(const std::string& name, std::shared_ptr<cachefiles::Cookie> cookie, uint64_t size,
               const BlobOrigin& origin);

  // Opens a file for reading through the file system itself, wherever it is mounted.
  Result<Fd> open(const std::string& name);

  // What has been read of the file in its first minutes; nothing for one that was taken over.
  std::vector<Touch> touches(const std::string& name) const;

  // Takes the name away. Whoever has the file open goes on reading.
  void remove(const std::string& name);

  BlobFsStat stat() const;

  class Server;

 private:
  explicit BlobFs(std::shared_ptr<Server> server);
  std::shared_ptr<Server> server_;  // shared with callbacks that the engine still owes
};

}  // namespace hydrant::front
