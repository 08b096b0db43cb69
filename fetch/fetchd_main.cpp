// hydrant-fetchd: the user daemon. Wires the parts, runs until SIGTERM, SIGINT or an admin stop. It may be killed and
// restarted at any moment: the cache keeps what is pending and sends it to the next one.
#include <malloc.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <filesystem>

#include "base/file.h"
#include "base/line_socket.h"
#include "base/log.h"
#include "base/unix_socket.h"
#include "base/version.h"
#include "fetch/confinement.h"
#include "fetch/device_channel.h"
#include "fetch/late_proofs.h"
#include "fetch/served.h"
#include "fetch/service.h"
#include "fetch/transport/socket_control.h"
#include "proto/admin.h"
#include "source/open.h"

namespace hydrant::fetch {
namespace {

// The numbers are those of hydrant(1), for the same causes; hydrant-keeper tries again after "in use" (7).
int exit_status(Code code) {
  switch (code) {
    case Code::kInvalid: return 2;
    case Code::kNotFound: return 3;
    case Code::kDenied: return 4;
    case Code::kBusy: return 7;
    case Code::kNoSpace: return 8;
    case Code::kCorrupt: return 9;
    case Code::kUnsupported: return 10;
    default: return 1;
  }
}

// hydrantd opens every file of the mounts that it has the kernel forget.
constexpr Duration kWithdrawLimit = std::chrono::minutes(1);

struct Options {
  std::string root = "/var/lib/hydrant";
  unsigned workers = 32;
  unsigned memory_mb = 64;
  unsigned streams = 3;
  unsigned read_limit_s = 50;
  unsigned undemanded_mbit = 0;
  std::vector<std::string> host_directories = source::default_host_directories();
  source::HttpOptions http;
  std::string log_level;

  // A kernel's cache in place of hydrantd's.
  std::string device;
  std::string cache_dir;  // empty: below the root
  std::string tag = "hydrant";
  std::vector<std::string> serve;
  std::string docker_config;  // path

  ConfinementOptions confinement;
};

// Buffers of fills come and go in megabytes. Mapping each anew costs more in page faults than inflating into it, so the
// heap keeps them while there is work; the request loop trims it when there is none.
void tune_malloc() {
  mallopt(M_ARENA_MAX, 2);
  mallopt(M_MMAP_THRESHOLD, 8 << 20);
  mallopt(M_TRIM_THRESHOLD, 64 << 20);
}

Result<std::vector<Served>> parse_sources(const Options& options) {
  const std::string working_dir = std::filesystem::current_path().string();
  std::vector<Served> sources;
  for (const std::string& text : options.serve) {
    HYDRANT_TRY(auto served, parse_served(text, working_dir));
    sources.push_back(std::move(served));
  }
  return sources;
}

Result<std::string> read_docker_config(const Options& options) {
  if (options.docker_config.empty()) return std::string();
  return read_file(options.docker_config, 512 << 10);
}

std::string cache_dir(const Options& options) {
  return std::filesystem::absolute(options.cache_dir.empty() ? options.root + "/cachefiles" : options.cache_dir);
}

// Bound; nothing where hydrantd's channel is wanted.
Result<std::unique_ptr<DeviceChannel>> open_device(const Options& options) {
  std::unique_ptr<DeviceChannel> device;
  if (options.device.empty()) return device;
  device = std::make_unique<DeviceChannel>(options.device,
                                           KernelControlOptions{.cache_dir = cache_dir(options), .tag = options.tag},
                                           DescriptorStore::from_environment());
  HYDRANT_TRY_VOID(device->begin());
  return device;
}

// Prepares one source after the other and prints how each is mounted. What fails harms no other: an image that was
// prepared before is served by the catalogue whatever becomes of its source.
void serve_sources(const std::vector<Served>& sources, const std::string& docker_config, Preparer& preparer,
                   Catalogue& catalogue, std::stop_token stop) {
  for (const Served& served : sources) {
    if (stop.stop_requested()) return;
    auto image = prepare_served(served, docker_config, preparer, catalogue, stop);
    if (image) {
      std::printf("%s\n", mount_command(served, *image).c_str());
      std::fflush(stdout);
    } else {
      log::error("serve.failed", {{"code", to_string(image.error().code)}, {"reason", image.error().what}});
    }
  }
}

// One fetchd a root. The lock goes with the process, whatever ends it.
Result<Fd> lock_root(const Paths& paths) {
  HYDRANT_TRY(Fd lock, open_file(paths.lock_file(), O_RDWR | O_CREAT, 0600));
  if (::flock(lock.get(), LOCK_EX | LOCK_NB) != 0) {
    if (errno == EWOULDBLOCK) return fail(Code::kBusy, "another hydrant-fetchd serves " + paths.root);
    return fail_sys(errno, "lock " + paths.lock_file());
  }
  return lock;
}

// SIGTERM and SIGINT as a descriptor; blocked in every thread, because this runs before the first one.
Result<Fd> signal_descriptor() {
  std::signal(SIGPIPE, SIG_IGN);
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGINT);
  ::pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  Fd fd(::signalfd(-1, &signals, SFD_CLOEXEC));
  if (!fd) return fail_sys(errno, "signalfd");
  return fd;
}

Result<> serve(const Options& options) {
  HYDRANT_TRY(Fd signals, signal_descriptor());
  Fd stop_event(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!stop_event) return fail_sys(errno, "eventfd");

  Paths paths{options.root};
  HYDRANT_TRY_VOID(make_directories(paths.run(), 0755));
  HYDRANT_TRY_VOID(make_directories(paths.state()));
  HYDRANT_TRY(Fd lock, lock_root(paths));
  RequestLoop::Connect connect = [&](Deadline deadline) {
    return SocketControl::attach(paths.channel_socket(), deadline);
  };
  HYDRANT_TRY(auto sources, parse_sources(options));
  HYDRANT_TRY(auto docker_config, read_docker_config(options));
  HYDRANT_TRY(auto device, open_device(options));
  HYDRANT_TRY(Fd listener, listen_unix(paths.admin_socket(), SocketType::kStream, 0600));
  std::string pid = std::to_string(::getpid()) + "\n";
  HYDRANT_TRY_VOID(write_file_atomic(paths.pid_file(), as_bytes(pid), 0644));

  // From here on we are nobody, and everything that talks or parses comes after.
  auto confinement_options = options.confinement;
  if (device) {
    confinement_options.device = options.device;
    confinement_options.cache_dir = cache_dir(options);
  }
  HYDRANT_TRY(const Confinement confinement, confine(paths, confinement_options));
  HYDRANT_TRY(auto catalogue, Catalogue::open(paths.catalogue()));
  HYDRANT_TRY(auto credentials, CredentialStore::open(paths.credentials()));
  if (device) connect = [&](Deadline) { return device->connect(); };

  auto client = std::make_shared<source::HttpClient>(options.http);  // shared by every store and blob
  auto hosts = std::make_shared<const source::HostDirectory>(options.host_directories);  // as the client
  Origins origins(
      paths,
      [&, client, hosts](const proto::SourceReference& reference,
                         std::optional<bool> plain_http) -> Result<std::shared_ptr<source::ImageStore>> {
        HYDRANT_TRY(auto known, credentials->find(reference.image.registry));
        return source::open_image_store(reference, client, {std::move(known), plain_http, hosts});
      },
      [client, hosts](const proto::SourceReference& reference, Deadline deadline) {
        return source::open_blob(reference, client, hosts.get(), deadline);
      });

  // Declared in the order of who uses whom; destroyed the other way round.
  MemoryBudget memory(uint64_t{options.memory_mb} << 20);
  FillQueue queue(options.workers);
  std::optional<RateBudget> undemanded;
  if (options.undemanded_mbit > 0) undemanded.emplace(uint64_t{options.undemanded_mbit} * 1'000'000 / 8);
  FillShop shop{queue,
                memory,
                {.reader_deadline = std::chrono::seconds(options.read_limit_s)},
                undemanded ? &*undemanded : nullptr};
  LateProofs* proofs = nullptr;  // there before anything is opened
  Objects objects(shop, *catalogue, [&](const ObjectRow& row) {
    if (row.kind == ObjectKind::kLateLayer) proofs->expect(row);
    return origins.origin(row);
  });
  LayerStreamer streamer(paths, origins, objects, device ? no_ingest() : ingest_through(paths.hydrantd_socket()),
                         options.streams);
  const MountedImages mounted(paths.hydrantd_socket());
  LateProofs late(origins, streamer, queue, [&](const std::string& id) -> Result<> {
    if (device) return fail(Code::kUnsupported, "the kernel's cache keeps what it has; unmount what uses it");
    return mounted.withdraw(id, Deadline::after(kWithdrawLimit));
  });
  proofs = &late;
  Preparer preparer(paths, *catalogue, *credentials, origins, streamer, {.fill_holes = device != nullptr});
  Prefetcher prefetcher(paths, *catalogue, origins, objects, queue, mounted);
  RequestLoopOptions loop_options;
  if (!device) loop_options.attached = [&] { prefetcher.resume(); };
  auto loop = std::make_unique<RequestLoop>(std::move(connect), objects, loop_options);
  Service service{
      preparer, prefetcher, objects, *catalogue, *loop, confinement, [&] { ::eventfd_write(stop_event.get(), 1); }};

  HYDRANT_TRY(auto server,
              LineServer::start(
                  std::move(listener),
                  proto::encode_error({.code = Code::kDenied, .what = "only root and the daemon's own user may ask"}),
                  [&](auto&) { return make_session(service); }));
  log::info("fetchd.started", {{"root", options.root}, {"version", kVersion}});

  std::jthread serving([&](std::stop_token stop) {
    pthread_setname_np(pthread_self(), "serve");
    serve_sources(sources, docker_config, preparer, *catalogue, stop);
  });
  pollfd wait[2] = {{signals.get(), POLLIN, 0}, {stop_event.get(), POLLIN, 0}};
  while (::poll(wait, 2, -1) < 0 && errno == EINTR) {
  }
  log::info("fetchd.stopping");
  // No new work, then no new reads, then what is under way is given up: the cache keeps its readers for the next one.
  serving.request_stop();
  server->stop();
  loop.reset();
  objects.close_all();
  queue.stop();
  // These go where the directory is ours; in root's `hydrant stop` removes them.
  ::unlink(paths.pid_file().c_str());
  ::unlink(paths.admin_socket().c_str());
  return {};
}

}  // namespace
}  // namespace hydrant::fetch

int main(int argc, char** argv) {
  using namespace hydrant;
  fetch::Options options;
  CLI::App app{"hydrant-fetchd: fetches what the cache misses"};
  app.set_version_flag("--version", std::string(kVersion));
  app.set_config("--config", "/etc/hydrant/fetchd.toml", "file with any of these options, by their long names");
  app.allow_config_extras(CLI::config_extras_mode::error);
  app.add_option("--root", options.root, "where all state is")->capture_default_str();
  app.add_option("--workers", options.workers, "fills at a time")->check(CLI::Range(1, 256))->capture_default_str();
  app.add_option("--memory-mb", options.memory_mb, "bytes that fills in flight may hold, in MiB")
      ->check(CLI::Range(1, 65536))
      ->capture_default_str();
  app.add_option("--streams", options.streams, "layers that stream in at a time")
      ->check(CLI::Range(1, 16))
      ->capture_default_str();
  app.add_option(
         "--read-limit", options.read_limit_s,
         "seconds that an origin has to supply what a reader waits for; less than hydrantd's, so that the reader's "
         "error has a cause")
      ->check(CLI::Range(1, 3600))
      ->capture_default_str();
  app.add_option("--undemanded-mbit", options.undemanded_mbit,
                 "what prefetch and background may take of the network, Mbit/s; 0 is no limit")
      ->check(CLI::Range(0, 1000000))
      ->capture_default_str();
  auto* device = app.add_option("--device", options.device,
                                "serve a kernel's cache through this device (/dev/cachefiles), not hydrantd's");
  app.add_option("--cache-dir", options.cache_dir, "where that cache is; below the root by default")->needs(device);
  app.add_option("--tag", options.tag, "that cache's name")->needs(device)->capture_default_str();
  app.add_option("--serve", options.serve, "[ID=]SOURCE to prepare; prints the command that mounts it")->needs(device);
  app.add_option("--docker-config", options.docker_config, "file with the registries' credentials, for --serve")
      ->needs(device);
  app.add_option("--hosts-dir", options.host_directories,
                 "directory with containerd's hosts.toml or docker's certificates by registry; may be repeated")
      ->capture_default_str();
  app.add_option("--proxy", options.http.proxy, "URL of the proxy, in place of the environment's");
  app.add_option("--no-proxy", options.http.no_proxy, "hosts that are asked directly, with commas between");
  app.add_option("--netrc", options.http.netrc, "file with logins for http(s) sources")->check(CLI::ExistingFile);
  app.add_option("--ca-file", options.http.ca_file, "PEM bundle in place of the system's")->check(CLI::ExistingFile);
  app.add_option("--transfers-per-origin", options.http.transfers_per_origin, "requests to one origin at a time")
      ->check(CLI::Range(1, 1024))
      ->capture_default_str();
  app.add_flag("--prefer-http2", options.http.prefer_http2,
               "ask by HTTP/2 over TLS where it is spoken; else only who takes no HTTP/1.1 is asked by it");
  app.add_option("--user", options.confinement.user,
                 "user to become when root starts it; by default hydrant, or one of its own without a name");
  app.add_option("--unconfined", options.confinement.unconfined,
                 "part of the confinement to leave out: user, capabilities, landlock or seccomp; may be repeated")
      ->check(CLI::IsMember(fetch::kConfinementParts));
  app.add_option("--log-level", options.log_level, "debug, info, warn or error")
      ->check(CLI::IsMember({"debug", "info", "warn", "error"}));
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) ? 2 : 0;
  }
  if (options.log_level == "debug") log::set_level(log::Level::kDebug);
  if (options.log_level == "info") log::set_level(log::Level::kInfo);
  if (options.log_level == "warn") log::set_level(log::Level::kWarn);
  if (options.log_level == "error") log::set_level(log::Level::kError);

  fetch::tune_malloc();
  raise_descriptor_limit();  // each object that a kernel has open is one here
  ::umask(0077);
  if (auto served = fetch::serve(options); !served) {
    std::fprintf(stderr, "hydrant-fetchd: %s\n", served.error().what.c_str());
    return fetch::exit_status(served.error().code);
  }
  return 0;
}
