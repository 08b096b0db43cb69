// hydrantd put together: the engine, its channel, the fronts, the mounts and the sockets.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "base/descriptor_store.h"
#include "base/error.h"
#include "base/line_socket.h"
#include "base/unix_socket.h"
#include "cachefiles/engine.h"
#include "daemon/admin_session.h"
#include "daemon/channel_server.h"
#include "daemon/erofs_mount.h"
#include "daemon/mounts.h"
#include "daemon/objects.h"
#include "daemon/root.h"
#include "daemon/scrubber.h"
#include "daemon/stored_marks.h"
#include "front/fuse/blob_fs.h"

namespace hydrant::daemon {

struct ServiceOptions {
  std::string root = "/var/lib/hydrant";
  unsigned fuse_threads = 2;                       // 1..64, restart
  Duration read_limit = std::chrono::seconds(60);  // of a reader that waits for a fill, restart
  Duration open_limit = std::chrono::seconds(30);  // for the user daemon's answer to an OPEN, restart
  std::string front = "auto";                      // of mounts that do not say: auto (fuse) | fuse | fanotify, restart
  uint64_t quota = 0;                              // bytes of the cache on its disk; 0: none, restart
  bool verify = true;                              // what has a Merkle root is checked against it, restart
  ScrubberOptions scrub = {};
  std::string version = "unknown";
  // Not empty: only an engine, unbound as a freshly loaded kernel module is, whose channel socket this is
  // (docs/decisions/005). It is for programs written for the kernel, which choose directory, tag and mode; `root` is
  // then our own, beside the socket, and goes with us.
  std::string engine_socket = {};
};

class Service {
 public:
  // Opens the engine's channel and binds the cache as the user daemon's supervisor: fetchd comes and goes.
  // What `store` has of a predecessor is taken over, and `marks`, which came from it; what a successor will need is put
  // there. After a failure the process must end without destructors (_exit): threads may run.
  static Result<std::unique_ptr<Service>> start(ServiceOptions options, DescriptorStore store, front::HeldMarks marks);
  // Ends everything that `stop` has not ended.
  ~Service();

  // Readable once a client asked for the end.
  int stop_requested() const { return stop_event_.get(); }
  // Readable when users may have gone since it was read last.
  int user_left() const { return user_left_.get(); }
  // Nobody becomes a user any more; false when somebody has, in between.
  bool retire() { return channel_server_->close_if_unused(); }
  // Channels, handles, holds or mounts are there.
  bool in_use() { return channel_server_->users() > 0 || !mounts_->list().mounts.empty(); }

  // Every second or so, and when a new keeper calls, by the thread that started it.
  void tick();

 private:
  explicit Service(ServiceOptions options, DescriptorStore store, Root root)
      : options_(std::move(options)), store_(std::move(store)), root_(std::move(root)) {}
  Result<> bind();
  Result<> open_front(front::HeldMarks marks);
  Result<std::shared_ptr<cachefiles::Cookie>> cookie_of(const std::map<ObjectKey, proto::MerkleProof>& proofs,
                                                        const proto::HandedBlob& blob);
  Result<> take_over_marks(front::HeldMarks held);
  Result<Fd> listener(const char* name, const std::string& path, SocketType type);
  Result<> serve(front::HeldMarks marks);
  std::string channel_socket() const;
  std::string admin_socket() const;
  bool user_daemon_attached() const;
  std::vector<std::shared_ptr<cachefiles::Cookie>> live_cookies() const;
  std::vector<std::shared_ptr<cachefiles::Cookie>> cookies_to_cull() const;
  proto::StatusReply status() const;
  Result<> put_away();

  const ServiceOptions options_;
  // Each stands on those above it and goes before them.
  DescriptorStore store_;
  Root root_;
  Fd stop_event_;
  Fd user_left_;
  std::optional<ErofsBacking> erofs_;   // nothing: none of it works here
  std::unique_ptr<StoredMarks> marks_;  // answers the engine's own reads to the end
  std::unique_ptr<cachefiles::Engine> engine_;
  std::shared_ptr<cachefiles::Channel> channel_;  // shared with the channel server
  std::unique_ptr<ChannelServer> channel_server_;
  std::unique_ptr<Objects> objects_;
  std::unique_ptr<Pins> pins_;
  std::unique_ptr<front::BlobFs> blobs_;
  std::unique_ptr<Mounts> mounts_;
  std::unique_ptr<Culler> culler_;      // none for a bare engine
  std::unique_ptr<Scrubber> scrubber_;  // the same
  std::optional<AdminScope> scope_;
  std::unique_ptr<LineServer> admin_;
};

}  // namespace hydrant::daemon
