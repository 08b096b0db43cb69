// hydrant: verbs for people. Parses, runs one verb, maps its failure to one line and one exit status.
#include <signal.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <functional>

#include "base/version.h"
#include "cli/verbs.h"

namespace {

using namespace hydrant;
using namespace hydrant::cli;

// The sockets close with the process, which cancels what the daemons do for us.
void on_interrupt(int) {
  if (::isatty(STDERR_FILENO)) (void)!::write(STDERR_FILENO, "\n", 1);
  ::_exit(static_cast<int>(ExitStatus::kInterrupted));
}

int report(const Failure& failure) {
  std::string line = failure.what;
  std::replace_if(
      line.begin(), line.end(), [](char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7f; }, ' ');
  std::fprintf(stderr, "hydrant: %s\n", line.c_str());
  return static_cast<int>(failure.status);
}

struct CommandLine {
  CLI::App app{"Mounts remote images and files at once and fetches each block when it is first read."};
  CommonOptions common;
  MountOptions mount;
  IndexOptions index;
  UmountOptions umount;
  EngineOptions engine;
  PrefetchOptions prefetch = {};
  GcOptions gc = {};
  DoctorOptions doctor;
  StopOptions stop;
  ExecOptions exec;
  std::string stat_dir;
  std::function<Outcome()> verb;

  CommandLine() {
    app.require_subcommand(1);
    app.set_version_flag("--version", "hydrant " + std::string(kVersion));
    app.failure_message([](const CLI::App*, const CLI::Error& error) {
      return std::string("hydrant: ") + error.what() + "; see hydrant --help\n";
    });
    app.add_option("--root", common.root, "State directory of the daemons, before the verb or behind it");
    add_mount();
    add_index();
    add_convert();
    add_state_verbs();
    add_exec();
  }

  CLI::App* add_verb(const char* name, const char* help, std::function<Outcome()> action) {
    CLI::App* sub = app.add_subcommand(name, help);
    sub->add_option("--root", common.root, "State directory of the daemons")->capture_default_str();
    sub->callback([this, action = std::move(action)] { verb = action; });
    return sub;
  }

  template <class Options>
  static void add_image_options(CLI::App* sub, Options& options) {
    sub->add_option("--as", options.as, "What the source is")
        ->check(CLI::IsMember({"auto", "image", "erofs", "tar", "file"}))
        ->capture_default_str();
    sub->add_option("--platform", options.platform, "os/arch[/variant] to choose from an image index");
    sub->add_flag("--plain-http", options.plain_http, "Speak HTTP to the registry (loopback hosts: always)");
    sub->add_flag("--no-start", options.no_start, "Fail when no daemon runs instead of starting one");
    sub->add_option("--timeout", options.timeout_s, "Seconds until the command gives up; 0: none")
        ->check(CLI::NonNegativeNumber);
  }

  CLI::Option* add_socket(CLI::App* sub) {
    return sub->add_option("--socket", common.socket, "The engine's channel socket, where it is not the root's");
  }

  void add_json(CLI::App* sub) { sub->add_flag("--json", common.json, "Print one JSON object"); }

  void add_mount() {
    CLI::App* sub = add_verb("mount", "Mount SOURCE at DIR", [this] { return run_mount(common, mount); });
    sub->add_option("SOURCE DIR", mount.arguments, "Image reference, oci:DIR[:TAG], http(s)://, file:///; directory")
        ->required()
        ->expected(1, 2);
    add_image_options(sub, mount);
    add_json(sub);
    CLI::Option* fsid = sub->add_option("--fsid", mount.fsid, "Mount this object of the attached user daemon");
    sub->add_option("--device", mount.devices, "A device of --fsid, in order; none: as the image says")
        ->allow_extra_args(false)
        ->needs(fsid);
    sub->add_option("--domain-id", mount.domain_id, "Domain of --fsid")->needs(fsid);
    add_socket(sub)->needs(fsid);
    sub->add_option("--trust", mount.trust, "Which indexes that stand beside the image are used")
        ->check(CLI::IsMember({"strict", "late", "off"}))
        ->capture_default_str()
        ->excludes(fsid);
    CLI::Option* background =
        sub->add_flag("--background", mount.background, "Fetch the rest of the image while nobody wants anything else");
    background->excludes(fsid);
    sub->add_flag("--pin", mount.pin,
                  "Never cull what it consists of, not after the mount either: gc --unpin ends that");
    sub->add_flag("--no-prefetch", mount.no_prefetch,
                  "Fetch nothing ahead of its readers, learn nothing from this start")
        ->excludes(background);
    sub->add_option("--front", mount.front,
                    "What the kernel reads through: fuse, or fanotify (Linux 6.14; docs/reliability.md says when)")
        ->check(CLI::IsMember({"auto", "fuse", "fanotify"}))
        ->capture_default_str();
    sub->add_option("--read-ahead-kb", mount.read_ahead_kb, "Kernel read-ahead of the mount; 0: default")
        ->check(CLI::Range(0u, 65536u));
  }

  void add_index() {
    CLI::App* sub = add_verb("index", "Make and keep the index of SOURCE", [this] { return run_index(common, index); });
    sub->add_option("SOURCE", index.source, "As for mount")->required();
    add_image_options(sub, index);
    add_json(sub);
    CLI::Option* push = sub->add_flag("--push", index.push, "Put the indexes beside the image in its registry");
    sub->add_option("--sign-key", index.sign_key, "PEM file of the private key that signs them")->needs(push);
  }

  void add_convert() {
    CLI::App* sub = add_verb("convert", "Make a copy of SOURCE that names its indexes, sharing its layers",
                             [this] { return run_index(common, index); });
    sub->add_option("SOURCE", index.source, "An image in a registry")->required();
    sub->add_option("DEST", index.convert_to, "Another tag of its repository, in full")->required();
    add_image_options(sub, index);
    add_json(sub);
    sub->add_option("--sign-key", index.sign_key, "PEM file of the private key that signs the indexes");
  }

  void add_exec() {
    CLI::App* sub = app.add_subcommand("cachefiles-exec", "Run PROGRAM with /dev/cachefiles redirected to an engine");
    sub->add_option("--socket", exec.socket,
                    "Channel socket of the engine to share; started there if nobody serves it");
    sub->add_option("PROGRAM", exec.program, "-- PROGRAM [ARGUMENT]...")->required()->type_size(1)->expected(1, 4096);
    sub->callback([this] { verb = [this] { return run_cachefiles_exec(exec); }; });
  }

  void add_state_verbs() {
    CLI::App* sub = add_verb("umount", "Unmount DIR", [this] { return run_umount(common, umount); });
    sub->add_option("DIR", umount.dir)->required();
    sub->add_flag("--lazy", umount.lazy, "Detach now; open files keep working until they are closed");
    sub->add_option("--timeout", umount.timeout_s, "Seconds to wait")
        ->capture_default_str()
        ->check(CLI::PositiveNumber);

    add_socket(sub);

    sub = add_verb("ls", "List the mounts", [this] { return run_ls(common); });
    add_socket(sub);
    add_json(sub);

    sub = add_verb("stat", "Tell what a mount has fetched", [this] { return run_stat(common, stat_dir); });
    sub->add_option("DIR", stat_dir)->required();
    add_socket(sub);
    add_json(sub);

    sub = add_verb("record", "Keep what has been read since the mount as the image's prefetch list",
                   [this] { return run_record(common, prefetch); });
    sub->add_option("DIR", prefetch.dir)->required();
    add_json(sub);

    sub = add_verb("replay", "Fetch what the image's prefetch list names",
                   [this] { return run_prefetch(common, prefetch); });
    sub->add_option("DIR", prefetch.dir)->required();
    add_json(sub);

    sub = add_verb("prefetch", "Fetch files and directories ahead of their readers",
                   [this] { return run_prefetch(common, prefetch); });
    sub->add_option("DIR", prefetch.dir)->required();
    sub->add_option("PATH", prefetch.paths, "In the mount; none: what the prefetch list names");
    add_json(sub);

    sub = add_verb("gc", "Make room in the cache, as its limits say", [this] { return run_gc(common, gc); });
    CLI::Option* at_most =
        sub->add_option("--at-most", gc.at_most, "Delete what no mount uses until so many bytes are left (k, m, g, t)")
            ->transform(CLI::AsSizeValue(false));
    sub->add_flag_callback(
           "--all", [this] { gc.at_most = 0; }, "Delete all that no mount uses")
        ->excludes(at_most);
    sub->add_option("--unpin", gc.unpin, "First, let what mount --pin pinned of this SOURCE be culled again");
    add_json(sub);

    sub = add_verb("doctor", "Look for what is wrong, and say the way out",
                   [this] { return run_doctor(common, doctor); });
    sub->add_flag("--repair", doctor.repair, "Start daemons that do not run; mount anew what their death left dead");
    add_json(sub);

    add_json(add_verb("upgrade", "Replace the daemons by those beside this program; mounts and readers stay",
                      [this] { return run_upgrade(common); }));

    sub = add_verb("stop", "Unmount everything and end the daemons", [this] { return run_stop(common, stop); });
    sub->add_option("--timeout", stop.timeout_s, "Seconds to wait")->capture_default_str()->check(CLI::PositiveNumber);

    sub = add_verb("engine", "List what the cache engine has, choose its trace points",
                   [this] { return run_engine(common, engine); });
    sub->add_option("--trace", engine.trace, "Trace points to switch on: names with commas, all or none");
    sub->add_option("--cookies", engine.cookies, "List at most so many cookies")->capture_default_str();
    add_socket(sub);
    add_json(sub);

    add_json(
        add_verb("version", "Versions of this program and of running daemons", [this] { return run_version(common); }));
  }
};

}  // namespace

int main(int argc, char** argv) {
  ::signal(SIGINT, on_interrupt);
  ::signal(SIGPIPE, SIG_IGN);
  CommandLine line;
  auto called_so = [&](CLI::App* sub) { return sub->check_name(argv[1]); };
  if (argc > 1 && argv[1][0] != '-' && line.app.get_subcommands(called_so).empty()) {
    return report({ExitStatus::kUsage, "no verb \"" + std::string(argv[1]) + "\"; see hydrant --help"});
  }
  try {
    line.app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return line.app.exit(error) == 0 ? 0 : static_cast<int>(ExitStatus::kUsage);
  }
  if (!line.common.socket.empty())
    line.common.socket = std::filesystem::absolute(line.common.socket).lexically_normal().string();
  line.common.root = std::filesystem::absolute(line.common.root).lexically_normal().string();
  if (::geteuid() != 0 && !line.app.got_subcommand("version")) {
    return report({ExitStatus::kNotRoot, "needs root; run it with sudo"});
  }
  Outcome outcome = line.verb();
  if (!outcome) return report(outcome.error());
  if (std::fflush(stdout) != 0) return report({ExitStatus::kIo, "cannot write to standard output"});
  return 0;
}
