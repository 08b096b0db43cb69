// cachefiles-exec: runs a program written for the kernel's /dev/cachefiles against an engine of ours.
#include <poll.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>

#include "base/file.h"
#include "base/unix_socket.h"
#include "cli/daemons.h"
#include "cli/verbs.h"
#include "proto/device.h"
#include "proto/elf.h"

namespace hydrant::cli {
namespace {

namespace ch = proto::channel;

constexpr auto kStartPatience = std::chrono::seconds(10);
constexpr int kMostInterpreters = 4;  // of scripts that scripts run, as in the kernel
constexpr char kLibrary[] = "libhydrant-cachefiles.so";

tl::unexpected<Failure> give_up(ExitStatus status, std::string what) {
  return tl::unexpected<Failure>(Failure(status, std::move(what)));
}

tl::expected<std::string, Failure> find_program(const std::string& name) {
  if (name.find('/') != name.npos) return name;
  const char* path = std::getenv("PATH");
  std::string_view rest = path ? path : "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
  while (!rest.empty()) {
    size_t end = std::min(rest.find(':'), rest.size());
    std::string candidate = std::string(rest.substr(0, end)) + "/" + name;
    if (::access(candidate.c_str(), X_OK) == 0 && !std::filesystem::is_directory(candidate)) return candidate;
    rest.remove_prefix(std::min(end + 1, rest.size()));
  }
  return give_up(ExitStatus::kNotFound, name + ": no such program in PATH");
}

// Before it runs: a program that the library does not reach would find no device, and say something misleading.
Outcome check_program(std::string path) {
  std::string named = path;
  auto refuse = [&](const std::string& why) {
    std::string who = path == named ? named : named + " (run by " + path + ")";
    return give_up(ExitStatus::kNotServable, who + " cannot be served this way: " + why);
  };
  for (int i = 0; i <= kMostInterpreters; ++i) {
    auto file = open_file(path, O_RDONLY);
    if (!file) return tl::unexpected<Failure>(std::move(file).error());
    struct stat status {};
    if (::fstat(file->get(), &status)) return tl::unexpected<Failure>(sys_error(errno, path));
    if (S_ISDIR(status.st_mode)) return give_up(ExitStatus::kUsage, path + ": is a directory");
    Buffer head(proto::kProgramHead);
    auto size = pread_some(file->get(), head, 0);
    if (!size) return tl::unexpected<Failure>(std::move(size).error());
    auto program = proto::read_program_head(Bytes(head).first(*size));
    using Form = proto::ProgramHead::Form;
    switch (program.form) {
      case Form::kScript:
        if (program.interpreter.empty()) return refuse("its first line names no interpreter");
        path = program.interpreter;
        continue;
      case Form::kStatic: return refuse("it is statically linked, so no library can stand between it and the kernel");
      case Form::kGo: return refuse("it is a Go program, which makes its system calls past the C library");
      case Form::kForeign: return refuse("it is a program for another machine or word size");
      case Form::kOther: return refuse("it is no program that this kernel starts by itself");
      case Form::kDynamic: break;
    }
    if (program.interpreter.find("/ld-linux-") == program.interpreter.npos)
      return refuse("its loader is " + program.interpreter + ", not that of the GNU C library");
    bool gains = ((status.st_mode & S_ISUID) && status.st_uid != ::geteuid()) ||
                 ((status.st_mode & S_ISGID) && (status.st_mode & S_IXGRP) && status.st_gid != ::getegid());
    if (gains) return refuse("it is setuid or setgid, and then the loader preloads no library by path");
    return {};
  }
  return refuse("too many scripts run each other");
}

struct Paths {
  std::string library;
  std::string hydrantd;
};

tl::expected<Paths, Failure> our_files() {
  std::error_code error;
  auto self = std::filesystem::read_symlink("/proc/self/exe", error);
  if (error) return tl::unexpected<Failure>(sys_error(error.value(), "/proc/self/exe"));
  auto bin = self.parent_path();
  Paths paths{(bin.parent_path() / "lib" / kLibrary).string(), (bin / "hydrantd").string()};
  for (auto& path : {paths.library, paths.hydrantd})
    if (::access(path.c_str(), R_OK)) return give_up(ExitStatus::kNotFound, path + " is missing");
  return paths;
}

// An engine that we started. It is nobody's child: the program that we become has not asked for one.
class Engine {
 public:
  // Not started, without an error, when an engine that just ends took our directory away with its own things.
  Outcome start(const std::string& hydrantd, const std::string& socket) {
    log_ = socket + ".d/hydrantd.log";
    if (auto made = make_directories(socket + ".d"); !made) return tl::unexpected<Failure>(std::move(made).error());
    auto log = open_file(log_, O_WRONLY | O_CREAT | O_APPEND);
    if (!log && log.error().sys == ENOENT) return {};
    if (!log) return tl::unexpected<Failure>(std::move(log).error());
    int ends[2];
    if (::pipe2(ends, O_CLOEXEC)) return tl::unexpected<Failure>(sys_error(errno, "pipe"));
    alive_.reset(ends[0]);
    Fd theirs(ends[1]);
    pid_t child = ::fork();
    if (child < 0) return tl::unexpected<Failure>(sys_error(errno, "fork"));
    if (child == 0) {
      ::setsid();
      if (::fork() != 0) ::_exit(0);
      int null = ::open("/dev/null", O_RDWR);
      ::dup2(null, 0);
      ::dup2(log->get(), 1);
      ::dup2(log->get(), 2);
      // Its other end tells whether it lives; everything else of ours is none of its business.
      if (theirs.get() == 3)
        ::fcntl(3, F_SETFD, 0);
      else
        ::dup2(theirs.get(), 3);
      ::close_range(4, ~0u, 0);
      ::signal(SIGPIPE, SIG_DFL);
      (void)!::chdir("/");
      ::execl(hydrantd.c_str(), hydrantd.c_str(), "--engine", socket.c_str(), nullptr);
      ::_exit(127);
    }
    ::waitpid(child, nullptr, 0);
    return {};
  }
  bool started() const { return bool(alive_); }
  bool ended() const {
    pollfd one{alive_.get(), POLLIN, 0};
    return started() && ::poll(&one, 1, 0) > 0;
  }
  // Why it ended; empty when one that ended at the same time took its log away. Leaves nothing of it.
  std::string last_words() const {
    auto text = read_file(log_, 16 << 20);
    ::unlink(log_.c_str());
    ::rmdir(std::filesystem::path(log_).parent_path().c_str());
    if (!text) return {};
    while (!text->empty() && text->back() == '\n') text->pop_back();
    return text->substr(text->rfind('\n') + 1);
  }

 private:
  Fd alive_;
  std::string log_;
};

// Asks the engine at `socket` to count us as a user: a descriptor that is a user as long as somebody has it open.
Result<Fd> hold(const std::string& socket, Deadline deadline) {
  HYDRANT_TRY(Fd connection, connect_unix(socket, SocketType::kSeqPacket, deadline));
  auto head = proto::device::encode_bare(ch::Op::kHold, 1);
  const auto hung_up = Error{.code = Code::kUnreachable, .what = socket + " hung up"};  // it was just ending, perhaps
  if (int64_t sent = send_packet(connection.get(), head.bytes()); sent < 0)
    return sent == -EPIPE || sent == -ECONNRESET ? fail(hung_up) : fail_sys(int(-sent), socket);
  if (!wait_fd(connection.get(), POLLIN, deadline)) return fail(Code::kTooSlow, socket + " does not answer");
  Buffer answer(ch::kHeaderSize);
  Packet packet;
  int64_t size = receive_packet(connection.get(), answer, &packet);
  auto frame = size == int64_t(answer.size()) ? ch::decode_frame(answer) : std::nullopt;
  if (!frame) return fail(hung_up);
  if (frame->header.result < 0) return fail_sys(int(-frame->header.result), socket);
  if (packet.fd_count != 1) return fail(Code::kUnreachable, socket + " is no engine's");
  return std::move(packet.fds[0]);
}

tl::expected<Fd, Failure> join(const std::string& hydrantd, const std::string& socket) {
  Deadline deadline = Deadline::after(kStartPatience);
  Engine engine;
  for (;;) {
    auto held = hold(socket, deadline);
    if (held) return std::move(*held);
    Code code = held.error().code;
    if (code != Code::kNotFound && code != Code::kUnreachable) return tl::unexpected<Failure>(std::move(held).error());
    if (deadline.passed())
      return give_up(ExitStatus::kNoDaemon, "no engine serves " + socket + " within 10 s: " + held.error().what);
    if (engine.ended()) {
      std::string words = engine.last_words();
      // Two commands at once start two; the one that came second says so and is not needed.
      if (!words.empty() && words.find("another hydrantd") == words.npos && words.find("stopping") == words.npos)
        return give_up(ExitStatus::kNoDaemon, "the engine did not start: " + words);
      engine = Engine();
    }
    if (!engine.started())
      if (auto started = engine.start(hydrantd, socket); !started) return tl::unexpected(started.error());
    ::poll(nullptr, 0, 10);
  }
}

std::string private_socket() {
  std::string directory = ::access("/run", W_OK) == 0 ? "/run" : std::filesystem::temp_directory_path().string();
  return directory + "/hydrant-engine-" + std::to_string(::getpid()) + ".sock";
}

// Out of the way of the numbers that the program will see, and inherited.
int keep_open(const Fd& fd) {
  rlimit limit{};
  ::getrlimit(RLIMIT_NOFILE, &limit);
  return ::fcntl(fd.get(), F_DUPFD, static_cast<int>(std::min<rlim_t>(limit.rlim_cur / 4 * 3, 1000)));
}

}  // namespace

Outcome run_cachefiles_exec(const ExecOptions& options) {
  auto program = find_program(options.program.front());
  if (!program) return tl::unexpected(program.error());
  if (auto ok = check_program(*program); !ok) return ok;
  auto files = our_files();
  if (!files) return tl::unexpected(files.error());
  std::string socket = options.socket.empty() ? private_socket() : std::filesystem::absolute(options.socket).string();
  if (socket.size() > 101) return give_up(ExitStatus::kUsage, "the path of --socket may have 101 bytes: " + socket);
  struct stat status {};
  if (::stat(socket.c_str(), &status) == 0 && !S_ISSOCK(status.st_mode))
    return give_up(ExitStatus::kUsage, socket + " is no socket");
  auto held = join(files->hydrantd, socket);
  if (!held) return tl::unexpected(held.error());
  if (keep_open(*held) < 0) return give_up(ExitStatus::kIo, "no descriptor is free");
  const char* preload = std::getenv("LD_PRELOAD");
  std::string all = files->library + (preload && *preload ? ":" + std::string(preload) : "");
  ::setenv("LD_PRELOAD", all.c_str(), 1);
  ::setenv("HYDRANT_CACHEFILES_SOCKET", socket.c_str(), 1);
  ::signal(SIGPIPE, SIG_DFL);
  std::vector<char*> words;
  for (auto& word : options.program) words.push_back(const_cast<char*>(word.c_str()));
  words.push_back(nullptr);
  ::execv(program->c_str(), words.data());
  return tl::unexpected<Failure>(sys_error(errno, *program));
}

}  // namespace hydrant::cli
