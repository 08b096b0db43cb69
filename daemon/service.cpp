#include "daemon/service.h"

#include <fcntl.h>
#include <sys/eventfd.h>
#include <sys/stat.h>

#include <cerrno>
#include <thread>

#include "base/file.h"
#include "base/log.h"
#include "base/unix_socket.h"
#include "daemon/erofs_mount.h"
#include "proto/leaf_table.h"

namespace hydrant::daemon {

namespace {

constexpr off_t kMostLeafBytes = proto::kLeafTableHeader + proto::kMostLeaves * sizeof(Digest);

uint64_t resident_bytes() {
  auto text = read_file("/proc/self/statm", 256);
  unsigned long long total = 0, resident = 0;
  if (!text || std::sscanf(text->c_str(), "%llu %llu", &total, &resident) != 2) return 0;
  return resident * static_cast<uint64_t>(::sysconf(_SC_PAGESIZE));
}

// The file is fetchd's: it may be anything. What is damaged goes, for fetchd looks only whether it is there.
Result<std::string> read_leaves(const std::string& path, const Digest& root) {
  HYDRANT_TRY(Fd fd, open_file(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY));
  struct stat status {};
  if (::fstat(fd.get(), &status) != 0) return fail_sys(errno, path);
  if (!S_ISREG(status.st_mode) || status.st_size > kMostLeafBytes)
    return fail(Code::kCorrupt, path + " is no table of leaves");
  std::string text(static_cast<size_t>(status.st_size), '\0');
  HYDRANT_TRY_VOID(pread_exact(fd.get(), std::as_writable_bytes(std::span(text.data(), text.size())), 0));
  auto table = proto::decode_leaf_table(as_bytes(text));
  if (table && table->proof.root == root) return text;
  ::unlink(path.c_str());
  return fail(Code::kCorrupt, (table ? "its leaves are of another root" : table.error().what) +
                                  "; they are deleted, and the next mount brings them anew");
}

}  // namespace

Result<std::unique_ptr<Service>> Service::start(ServiceOptions options, DescriptorStore store, front::HeldMarks marks) {
  bool bare = !options.engine_socket.empty();
  if (bare) options.root = options.engine_socket + ".d";
  HYDRANT_TRY(Root root, bare ? Root::open_state(options.root) : Root::open(options.root));
  std::unique_ptr<Service> service(new Service(std::move(options), std::move(store), std::move(root)));
  auto begun = service->bind();
  if (begun) begun = service->serve(std::move(marks));
  if (!begun) {
    // Not put away, as an ordered end would: what a predecessor left is still held, and the next life may do better.
    (void)service.release();
    return fail(std::move(begun).error());
  }
  service->store_.ready();
  return service;
}

Result<> Service::bind() {
  cachefiles::EngineOptions engine;
  engine.verify = options_.verify;
  engine.replace_unlabelled = options_.engine_socket.empty();  // whose programs know what the kernel does
  engine.leaves = [this](const Digest& root) { return read_leaves(root_ / proto::leaf_table_name(root), root); };
  engine_ = cachefiles::Engine::create(std::move(engine));
  if (!options_.engine_socket.empty()) return {};
  if (int err = engine_->open_channel({}, &channel_)) return fail_sys(-err, "open the control channel");
  for (const std::string& command : {"dir " + root_.path(), std::string("tag hydrant"), std::string("bind ondemand")}) {
    int64_t n = channel_->write(as_bytes(command), {});
    if (n < 0) return fail_sys(static_cast<int>(-n), "cache at " + root_.path() + ": " + command);
  }
  return {};
}

Result<> Service::serve(front::HeldMarks marks) {
  stop_event_.reset(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  user_left_.reset(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!stop_event_ || !user_left_) return fail_sys(errno, "eventfd");

  auto probed = probe_erofs(root_.path());
  if (probed) erofs_ = *probed;
  if (probed == ErofsBacking::kLoopDevices)
    log::info("erofs-over-loop-devices", {{"why", "this kernel does not mount it from files (Linux 6.12)"}});
  if (!probed) log::warn("erofs-probe-failed", {{"why", probed.error().what}});

  objects_ = std::make_unique<Objects>(*engine_);
  pins_ = std::make_unique<Pins>(root_ / "pins");
  HYDRANT_TRY_VOID(open_front(std::move(marks)));

  HYDRANT_TRY(Fd channel, listener("run/channel.sock", channel_socket(), SocketType::kSeqPacket));
  ChannelServerOptions serving;
  serving.may_attach = [this](uid_t uid) { return uid == root_.user_daemon(); };
  serving.user_left = [this] { ::eventfd_write(user_left_.get(), 1); };
  HYDRANT_TRY(channel_server_, ChannelServer::start(*engine_, channel_, std::move(channel), std::move(serving)));
  HYDRANT_TRY(Fd admin, listener("run/hydrantd.sock", admin_socket(), SocketType::kStream));
  // The admin socket of the engine at S is S.admin (docs/decisions/005).
  if (options_.engine_socket.empty() && ::symlink("hydrantd.sock", (root_ / "run/channel.sock.admin").c_str()) &&
      errno != EEXIST)
    return fail_sys(errno, "link channel.sock.admin");
  if (options_.engine_socket.empty())
    culler_ = std::make_unique<Culler>(*engine_, channel_,
                                       CullerOptions{.directory = root_ / "cache", .quota = options_.quota}, *pins_,
                                       [this] { return cookies_to_cull(); });
  if (options_.engine_socket.empty())
    scrubber_ = std::make_unique<Scrubber>(
        options_.scrub, [this] { return live_cookies(); }, [this] { return blobs_->stat().waiting > 0; });
  scope_.emplace(AdminScope{.engine = *engine_,
                            .objects = *objects_,
                            .mounts = *mounts_,
                            .pins = *pins_,
                            .culler = culler_.get(),
                            .scrubber = scrubber_.get(),
                            .status = [this] { return status(); },
                            .stop = [this]() -> Result<> {
                              auto done = put_away();
                              ::eventfd_write(stop_event_.get(), 1);
                              return done;
                            },
                            .open_limit = options_.open_limit});
  std::string denied = proto::encode_error({.code = Code::kDenied, .what = "only root may talk to hydrantd"});
  HYDRANT_TRY(admin_,
              LineServer::start(
                  std::move(admin), std::move(denied),
                  [this](const PeerCredentials& peer) {
                    return std::make_unique<AdminSession>(
                        *scope_, peer.uid == 0 ? AdminSession::Peer::kRoot : AdminSession::Peer::kUserDaemon);
                  },
                  [this](const PeerCredentials& peer) { return peer.uid == 0 || peer.uid == root_.user_daemon(); }));
  return {};
}

std::string Service::channel_socket() const {
  return options_.engine_socket.empty() ? root_ / "run/channel.sock" : options_.engine_socket;
}

std::string Service::admin_socket() const {
  return options_.engine_socket.empty() ? root_ / "run/hydrantd.sock" : options_.engine_socket + ".admin";
}

// The predecessor's blob files when somebody held them and they can be taken over, else new ones.
Result<> Service::open_front(front::HeldMarks marks) {
  front::BlobFsOptions options{
      .mount_point = root_ / "blobs", .threads = options_.fuse_threads, .read_limit = options_.read_limit};
  front::Held held{.device = store_.take("fuse"), .mount = store_.take("blobs"), .journal = store_.take("handover")};
  std::optional<Mounts::Handed> handed;
  if (held) {
    handed.emplace();
    const auto proofs = recorded_proofs(root_ / "mounts");
    auto taken = front::BlobFs::take_over(options, std::move(held), [&](const proto::HandedBlob& blob) {
      auto cookie = cookie_of(proofs, blob);
      if (cookie && blob.named) handed->insert_or_assign({blob.volume, blob.id}, blob.name);
      return cookie;
    });
    if (taken) {
      blobs_ = std::move(*taken);
      log::info("taken-over", {{"blobs", handed->size()}});
    } else {
      log::error("take-over-failed", {{"why", taken.error().what}});
      handed.reset();
    }
  }
  if (!blobs_) {
    store_.drop_left({"fuse", "blobs", "handover"});
    HYDRANT_TRY(blobs_, front::BlobFs::create(options));
  }
  front::Held ours = blobs_->held();
  store_.put("handover", std::move(ours.journal));
  store_.put("blobs", std::move(ours.mount));
  store_.put("fuse", std::move(ours.device));
  HYDRANT_TRY_VOID(take_over_marks(std::move(marks)));
  MountsOptions mounts{.records = root_ / "mounts",
                       .cache = root_ / "cache",
                       .open_limit = options_.open_limit,
                       .front = options_.front == "fanotify" ? "fanotify" : "fuse"};
  HYDRANT_TRY(mounts_, Mounts::create(std::move(mounts), *objects_, *pins_, *blobs_, *marks_, handed));
  return {};
}

Result<std::shared_ptr<cachefiles::Cookie>> Service::cookie_of(const std::map<ObjectKey, proto::MerkleProof>& proofs,
                                                               const proto::HandedBlob& blob) {
  ObjectKey key{blob.volume, blob.id};
  auto proof = proofs.find(key);
  HYDRANT_TRY(auto object, objects_->adopt(key, proof == proofs.end() ? std::nullopt : std::optional(proof->second)));
  auto* cookie = &object->cookie();
  return std::shared_ptr<cachefiles::Cookie>(std::move(object), cookie);
}

// Whatever becomes of its record, a group that was held is never let go of here: its files would be read unseen.
Result<> Service::take_over_marks(front::HeldMarks held) {
  marks_ = std::make_unique<StoredMarks>(store_, options_.read_limit);
  if (!held.group) return {};
  const auto proofs = recorded_proofs(root_ / "mounts");
  return marks_->take_over(std::move(held), [&](const proto::HandedBlob& blob) {
    auto cookie = cookie_of(proofs, blob);
    if (cookie) (*cookie)->keep();
    return cookie;
  });
}

// A held listener keeps its callers: who connects while nobody accepts is served by the next one.
Result<Fd> Service::listener(const char* name, const std::string& path, SocketType type) {
  Fd held = store_.take(name);
  // A process that was just killed gives up its lock a little before its sockets.
  for (Deadline patience = Deadline::after(std::chrono::seconds(2)); !held;) {
    auto made = listen_unix(path, type);
    if (!made && (made.error().code != Code::kBusy || patience.passed())) return made;
    if (made)
      held = std::move(*made);
    else
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  // The user daemon connects as well. Whoever can reach the file may; who is heard is decided by who it is.
  if (options_.engine_socket.empty() && ::chmod(path.c_str(), 0666)) return fail_sys(errno, "chmod " + path);
  store_.put(name, held.duplicate());
  return held;
}

void Service::tick() {
  store_.check();
  objects_->retry();
  if (auto* files = marks_->now()) files->collect();
}

// On our own channel; or, where whoever comes opens one, as who has bound it in on-demand mode.
bool Service::user_daemon_attached() const {
  if (!options_.engine_socket.empty())
    for (const auto& cache : engine_->listing(0).caches)
      if (cache.state == 'A' && cache.on_demand) return true;
  return channel_server_->attached();
}

std::vector<std::shared_ptr<cachefiles::Cookie>> Service::live_cookies() const {
  std::vector<std::shared_ptr<cachefiles::Cookie>> out;
  for (const auto& object : objects_->all()) out.push_back(object->cookie_ptr());
  return out;
}

std::vector<std::shared_ptr<cachefiles::Cookie>> Service::cookies_to_cull() const {
  std::vector<std::shared_ptr<cachefiles::Cookie>> out;
  for (const auto& object : objects_->all())
    if (!pins_->hold(object->key())) out.push_back(object->cookie_ptr());
  return out;
}

proto::StatusReply Service::status() const {
  return {.pid = ::getpid(),
          .version = options_.version,
          .rss_bytes = resident_bytes(),
          .attached = user_daemon_attached(),
          .erofs_file_backed = erofs_ == ErofsBacking::kFiles,
          .erofs_over_loops = erofs_ == ErofsBacking::kLoopDevices};
}

Result<> Service::put_away() {
  mounts_->close();
  return engine_->flush();
}

Service::~Service() {
  // Nobody asks any more, then nobody mounts, then nobody reads, then nobody fills.
  if (culler_) culler_->stop();
  scrubber_.reset();
  if (admin_) admin_->stop();
  admin_.reset();
  culler_.reset();
  if (mounts_) {
    if (auto done = put_away(); !done) log::error("flush-failed", {{"why", done.error().what}});
  }
  if (marks_) marks_->leave_to_the_holder();
  store_.drop();
  mounts_.reset();
  if (marks_) marks_->stop();
  blobs_.reset();
  pins_.reset();
  objects_.reset();
  channel_server_.reset();
  channel_.reset();
  ::unlink(admin_socket().c_str());
  ::unlink(channel_socket().c_str());
  // Nothing of an engine stays; what is not empty is not ours. The lock last: a successor waits for it.
  if (!options_.engine_socket.empty()) {
    for (const char* name : {"blobs", "mounts"}) ::rmdir((root_ / name).c_str());
    for (const char* name : {"hydrantd.log", "run/hydrantd.lock"}) ::unlink((root_ / name).c_str());
    ::rmdir((root_ / "run").c_str());
    ::rmdir(root_.path().c_str());
  }
}

}  // namespace hydrant::daemon
