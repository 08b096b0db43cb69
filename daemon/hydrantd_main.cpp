// hydrantd: options, privileges, signals. Everything else is daemon/service.h.
#include <linux/capability.h>
#include <malloc.h>
#include <poll.h>
#include <sys/signalfd.h>
#include <sys/stat.h>

#include <CLI/CLI.hpp>
#include <csignal>
#include <cstdio>

#include "base/file.h"
#include "base/log.h"
#include "base/privileges.h"
#include "cachefiles/trace.h"
#include "daemon/service.h"

namespace {

using namespace hydrant;

// The numbers are those of hydrant(1), for the same causes.
int exit_status(Code code) {
  switch (code) {
    case Code::kInvalid: return 2;
    case Code::kDenied: return 4;
    case Code::kBusy: return 7;
    case Code::kNoSpace: return 8;
    case Code::kUnsupported: return 10;
    default: return 1;
  }
}
constexpr int kNotRoot = 14;
constexpr int kTickMs = 1000;

int give_up(int status, const std::string& what) {
  std::fprintf(stderr, "hydrantd: %s\n", what.c_str());
  return status;
}

// Mounts, fanotify and FUSE; files of the cache and directories to mount on, whoever owns them. What a mount is given
// to read may be another user's, too.
constexpr Capabilities kCapabilities =
    capability_set({CAP_SYS_ADMIN, CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH, CAP_FOWNER});

// It runs no program, so new privileges are none's loss.
void give_up_privileges() {
  if (auto done = keep_capabilities(kCapabilities); !done)
    log::warn("confinement-missing", {{"part", "capabilities"}, {"why", done.error().what}});
  if (auto done = forbid_new_privileges(); !done)
    log::warn("confinement-missing", {{"part", "no-new-privileges"}, {"why", done.error().what}});
}

void keep_memory_lean() {
  ::mallopt(M_ARENA_MAX, 2);
  ::mallopt(M_MMAP_THRESHOLD, 256 << 10);  // fixed, so that large buffers go back when freed
  ::mallopt(M_TRIM_THRESHOLD, 1 << 20);
}

// SIGHUP is a new keeper's call: it ends the wait, not the service.
void serve_until_told(daemon::Service& service, const pollfd& signal, const pollfd& stop) {
  for (;;) {
    pollfd ends[] = {signal, stop};
    if (::poll(ends, 2, kTickMs) < 0) continue;
    signalfd_siginfo got{};
    bool signalled = (ends[0].revents & POLLIN) && ::read(signal.fd, &got, sizeof got) == sizeof got;
    if ((ends[1].revents & POLLIN) || (signalled && got.ssi_signo != SIGHUP)) return;
    service.tick();
  }
}

// Users are whoever holds a channel, a handle or a place; and mounts, whose end shows in the table of mounts.
void serve_until_unused(daemon::Service& service, const pollfd& signal, const pollfd& stop) {
  constexpr int kFirstUserMs = 10'000;
  Fd mounts(::open("/proc/self/mountinfo", O_RDONLY | O_CLOEXEC));
  for (int patience = kFirstUserMs;;) {
    pollfd ends[] = {signal, stop, {service.user_left(), POLLIN, 0}, {mounts.get(), POLLPRI, 0}};
    int ready = ::poll(ends, 4, patience);
    if (ready < 0 && errno == EINTR) continue;
    if (ends[0].revents || ends[1].revents) return;
    uint64_t count = 0;
    (void)!::read(service.user_left(), &count, sizeof count);
    if (service.in_use())
      patience = -1;
    else if ((ready == 0 || ends[2].revents || patience < 0) && service.retire())
      return;
  }
}

}  // namespace

int main(int argc, char** argv) {
  // First of all, while the numbers of what was passed to us are nobody else's.
  auto store = DescriptorStore::from_environment();
  raise_descriptor_limit();  // blobs, objects and connections are one each
  auto marks = daemon::StoredMarks::left(store);
  keep_memory_lean();
  daemon::ServiceOptions options;
  options.version = HYDRANT_VERSION;
  std::string level;
  unsigned read_limit_s = 60, open_limit_s = 30;

  CLI::App app("The privileged half of Hydrant: serves cached blobs to the kernel and mounts images over them.");
  app.set_version_flag("--version", options.version);
  app.add_option("--root", options.root, "directory of the cache and of all state")->capture_default_str();
  app.add_option("--engine", options.engine_socket,
                 "serve nothing but an unbound engine on this channel socket, until its last user has gone")
      ->excludes("--root");
  app.add_option("--log-level", level, "debug, info, warn or error")
      ->check(CLI::IsMember({"debug", "info", "warn", "error"}));
  app.add_option("--fuse-threads", options.fuse_threads, "threads that answer the kernel")
      ->check(CLI::Range(1, 64))
      ->capture_default_str();
  app.add_option("--read-limit", read_limit_s, "seconds after which a read that waits for its bytes fails with EIO")
      ->check(CLI::Range(1, 3600))
      ->capture_default_str();
  app.add_option("--open-limit", open_limit_s, "seconds that a mount waits for the user daemon")
      ->check(CLI::Range(1, 3600))
      ->capture_default_str();
  app.add_option("--front", options.front,
                 "what mounts that do not say are read through: fuse, or fanotify (Linux 6.14); auto: fuse")
      ->check(CLI::IsMember({"auto", "fuse", "fanotify"}))
      ->capture_default_str();
  app.add_option("--quota", options.quota,
                 "bytes that the cache may take on its disk (suffixes k, m, g, t); 0: no limit")
      ->transform(CLI::AsSizeValue(false))
      ->capture_default_str();
  std::string verify = "engine";
  app.add_option("--verify", verify,
                 "who checks blocks against the image's index: engine (hydrantd, before they become present) or fetchd")
      ->check(CLI::IsMember({"engine", "fetchd"}))
      ->capture_default_str();
  unsigned scrub_every_s = 86400;
  app.add_option("--scrub-every", scrub_every_s, "seconds between two passes that hash again what is cached; 0: none")
      ->check(CLI::Range(0, 31'536'000))
      ->capture_default_str();
  app.add_option("--scrub-rate", options.scrub.rate, "bytes a second that such a pass reads (suffixes k, m, g)")
      ->transform(CLI::AsSizeValue(false))
      ->check(CLI::Range(uint64_t{4096}, uint64_t{1} << 40))
      ->capture_default_str();
  app.set_config("--config", "/etc/hydrant/hydrantd.toml", "file with any of these options, by their long names");
  app.allow_config_extras(CLI::config_extras_mode::error);
  std::string trace;
  app.add_option("--trace", trace, "trace points of the engine that are on from the start: names with commas, or all");
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) ? 2 : 0;
  }
  options.read_limit = std::chrono::seconds(read_limit_s);
  options.open_limit = std::chrono::seconds(open_limit_s);
  options.verify = verify == "engine";
  options.scrub.every = std::chrono::seconds(scrub_every_s);
  options.scrub.first = std::min(options.scrub.first, options.scrub.every);
  if (level == "debug") log::set_level(log::Level::kDebug);
  if (level == "info") log::set_level(log::Level::kInfo);
  if (level == "warn") log::set_level(log::Level::kWarn);
  if (level == "error") log::set_level(log::Level::kError);

  if (auto chosen = cachefiles::trace::select(trace); !chosen) return give_up(2, chosen.error().what);

  if (::geteuid() != 0) return give_up(kNotRoot, "needs root: it mounts file systems (try sudo hydrantd)");
  ::umask(077);
  ::signal(SIGPIPE, SIG_IGN);
  give_up_privileges();

  // Blocked before the first thread, so that only the descriptor below gets them.
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGINT);
  sigaddset(&signals, SIGHUP);
  ::pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  Fd signal_fd(::signalfd(-1, &signals, SFD_CLOEXEC));
  if (!signal_fd) return give_up(1, "signalfd failed");

  auto service = daemon::Service::start(options, std::move(store), std::move(marks));
  if (!service) ::_exit(give_up(exit_status(service.error().code), service.error().what));
  log::info("ready", {{"root", options.root}, {"version", options.version}});
  ::malloc_trim(0);

  pollfd ends[] = {{signal_fd.get(), POLLIN, 0}, {(*service)->stop_requested(), POLLIN, 0}};
  if (options.engine_socket.empty())
    serve_until_told(**service, ends[0], ends[1]);
  else
    serve_until_unused(**service, ends[0], ends[1]);
  log::info("stopping");
  service->reset();
  return 0;
}
