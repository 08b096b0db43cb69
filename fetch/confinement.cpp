#include "fetch/confinement.h"

#include <dirent.h>
#include <linux/capability.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>

#include "base/file.h"
#include "base/log.h"
#include "base/privileges.h"

namespace hydrant::fetch {

namespace {

// What the daemon, the libraries under it and credential helpers call; by what it is for, the busiest first. Left out
// on purpose is all that changes who we are, looks into or moves other processes, mounts, loads code into the kernel,
// makes links, devices or namespaces, or is a second way to do I/O that nobody here uses.
constexpr auto kSystemCalls = std::to_array<int>({
    // Bytes.
    SYS_read,
    SYS_write,
    SYS_pread64,
    SYS_pwrite64,
    SYS_readv,
    SYS_writev,
    SYS_preadv,
    SYS_pwritev,
    SYS_lseek,
    SYS_sendfile,
    SYS_fsync,
    SYS_fdatasync,
    SYS_ftruncate,
    SYS_fallocate,
    SYS_fadvise64,
    // The network and the daemons' sockets.
    SYS_recvmsg,
    SYS_sendmsg,
    SYS_recvfrom,
    SYS_sendto,
    SYS_sendmmsg,
    SYS_recvmmsg,
    SYS_socket,
    SYS_socketpair,
    SYS_connect,
    SYS_bind,
    SYS_listen,
    SYS_accept,
    SYS_accept4,
    SYS_shutdown,
    SYS_getsockname,
    SYS_getpeername,
    SYS_getsockopt,
    SYS_setsockopt,
    // Waiting.
    SYS_futex,
    SYS_ppoll,
    SYS_pselect6,
    SYS_epoll_create1,
    SYS_epoll_ctl,
    SYS_epoll_pwait,
    SYS_eventfd2,
    SYS_signalfd4,
    SYS_timerfd_create,
    SYS_timerfd_settime,
    SYS_timerfd_gettime,
    SYS_nanosleep,
    SYS_clock_nanosleep,
    SYS_clock_gettime,
    SYS_clock_getres,
    SYS_gettimeofday,
    SYS_restart_syscall,
    // Memory.
    SYS_mmap,
    SYS_munmap,
    SYS_mprotect,
    SYS_mremap,
    SYS_madvise,
    SYS_brk,
    SYS_mincore,
    SYS_memfd_create,
    SYS_mlock,
    SYS_munlock,
    SYS_membarrier,
    SYS_msync,
    // Files.
    SYS_openat,
    SYS_close,
    SYS_close_range,
    SYS_newfstatat,
    SYS_fstat,
    SYS_statx,
    SYS_statfs,
    SYS_fstatfs,
    SYS_getdents64,
    SYS_readlinkat,
    SYS_faccessat,
    SYS_mkdirat,
    SYS_unlinkat,
    SYS_renameat,
    SYS_renameat2,
    SYS_fchmod,
    SYS_fchmodat,
    SYS_utimensat,
    SYS_umask,
    SYS_getcwd,
    SYS_chdir,
    SYS_fchdir,
    SYS_flock,
    SYS_fcntl,
    SYS_ioctl,
    SYS_dup,
    SYS_dup3,
    SYS_pipe2,
    // Threads, and helpers' processes.
    SYS_clone,
    SYS_execve,
    SYS_exit,
    SYS_exit_group,
    SYS_wait4,
    SYS_waitid,
    SYS_set_robust_list,
    SYS_get_robust_list,
    SYS_rseq,
    SYS_set_tid_address,
    SYS_sched_yield,
    SYS_sched_getaffinity,
    SYS_getcpu,
    SYS_prctl,
    SYS_prlimit64,
    SYS_getrusage,
    SYS_times,
    SYS_sysinfo,
    SYS_uname,
    SYS_getrandom,
    SYS_getpriority,
    // Signals.
    SYS_rt_sigaction,
    SYS_rt_sigprocmask,
    SYS_rt_sigreturn,
    SYS_rt_sigtimedwait,
    SYS_rt_sigsuspend,
    SYS_rt_sigpending,
    SYS_sigaltstack,
    SYS_kill,
    SYS_tgkill,
    SYS_tkill,
    SYS_pidfd_open,
    SYS_pidfd_send_signal,
    // Who we are: questions.
    SYS_getpid,
    SYS_getppid,
    SYS_gettid,
    SYS_getuid,
    SYS_geteuid,
    SYS_getgid,
    SYS_getegid,
    SYS_getresuid,
    SYS_getresgid,
    SYS_getgroups,
    SYS_getpgid,
    SYS_setpgid,
    SYS_getsid,
    SYS_setsid,
    SYS_capget,
#ifdef SYS_poll  // The older half of x86-64.
    SYS_poll,
    SYS_select,
    SYS_epoll_wait,
    SYS_epoll_create,
    SYS_open,
    SYS_stat,
    SYS_lstat,
    SYS_access,
    SYS_readlink,
    SYS_mkdir,
    SYS_rmdir,
    SYS_unlink,
    SYS_rename,
    SYS_dup2,
    SYS_pipe,
    SYS_fork,
    SYS_vfork,
    SYS_getpgrp,
    SYS_time,
    SYS_arch_prctl,
    SYS_getrlimit,
    SYS_alarm,
    SYS_eventfd,
    SYS_chmod,
#endif
#ifdef SYS_faccessat2
    SYS_faccessat2,
#endif
#ifdef SYS_epoll_pwait2
    SYS_epoll_pwait2,
#endif
});

bool is_wanted(const ConfinementOptions& options, const char* part) {
  if (std::ranges::find(options.unconfined, part) == options.unconfined.end()) return true;
  log::warn("confinement-off", {{"part", part}, {"why", "a setting says so: an attacker has that much less to break"}});
  return false;
}

void missing(const char* part, const Error& error) {
  log::warn("confinement-missing", {{"part", part}, {"why", error.what}});
}

// What root wrote, in an earlier life of ours, becomes the user's. Another user's is left alone, and so is a file with
// a second name: it may be somebody's who was linked to here.
Result<> give_to(const Fd& directory, const std::string& path, User user) {
  std::unique_ptr<DIR, int (*)(DIR*)> entries(::fdopendir(directory.duplicate().release()), ::closedir);
  if (!entries) return fail_sys(errno, "list " + path);
  errno = 0;
  while (const dirent* entry = ::readdir(entries.get())) {
    const std::string name = entry->d_name;
    struct stat status {};
    if (name == "." || name == ".." || ::fstatat(directory.get(), name.c_str(), &status, AT_SYMLINK_NOFOLLOW)) continue;
    if (S_ISDIR(status.st_mode)) {
      Fd below(::openat(directory.get(), name.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
      if (!below) return fail_sys(errno, "open " + path + "/" + name);
      HYDRANT_TRY_VOID(give_to(below, path + "/" + name, user));
    } else if (S_ISREG(status.st_mode) && status.st_nlink == 1 && status.st_uid == ::geteuid() &&
               ::fchownat(directory.get(), name.c_str(), user.uid, user.gid, AT_SYMLINK_NOFOLLOW)) {
      return fail_sys(errno, "give " + path + "/" + name + " to user " + std::to_string(user.uid));
    }
  }
  // Last, so that what was not finished is seen to be unfinished.
  if (::fchown(directory.get(), user.uid, user.gid)) return fail_sys(errno, "give " + path);
  return {};
}

Result<User> user_of(const ConfinementOptions& options) {
  if (!options.user.empty()) return find_user(options.user);
  if (auto own = find_user("hydrant")) return own;
  return User{kOwnUid, kOwnUid};
}

// Root's privilege is needed for what is read: sources that root names, keys and certificates that are root's alone.
Result<> change_user(const Paths& paths, const ConfinementOptions& options) {
  const bool change = options.device.empty() && is_wanted(options, "user");
  User user;
  if (change) {
    HYDRANT_TRY(user, user_of(options));
  }
  HYDRANT_TRY(Fd state, open_file(paths.state(), O_RDONLY | O_DIRECTORY));
  HYDRANT_TRY_VOID(give_to(state, paths.state(), user));
  if (!change || user.uid == 0) return {};
  auto changed = become_user(user);
  if (changed) return {};
  // A user namespace without that user: we stay who we are, with all else given up.
  missing("user", changed.error());
  return give_to(state, paths.state(), {});
}

}  // namespace

Confinement confine_calls_and_files(const Paths& paths, const ConfinementOptions& options) {
  Confinement out;
  if (is_wanted(options, "landlock")) {
    FileRules rules{.write = {paths.state(), "/dev/null"}};
    if (!options.device.empty()) {
      rules.write.push_back(options.device);
      rules.write.push_back(options.cache_dir);
    }
    if (auto version = restrict_files(rules)) {
      out.landlock = *version;
      out.writes = rules.write;
    } else {
      missing("landlock", version.error());
    }
  }
  if (is_wanted(options, "seccomp"))
    if (auto done = restrict_system_calls(kSystemCalls); !done) missing("seccomp", done.error());
  return out;
}

Result<Confinement> confine(const Paths& paths, const ConfinementOptions& options) {
  if (::geteuid() == 0) HYDRANT_TRY_VOID(change_user(paths, options));
  if (is_wanted(options, "capabilities")) {
    // To read what root may read. Helpers that tell credentials do the same for us.
    const auto kept = capability_set({options.device.empty() ? CAP_DAC_READ_SEARCH : CAP_SYS_ADMIN});
    if (auto done = keep_capabilities(kept, /*inherited=*/options.device.empty()); !done)
      missing("capabilities", done.error());
  }
  if (auto done = forbid_new_privileges(); !done) missing("no-new-privileges", done.error());
  return confine_calls_and_files(paths, options);
}

}  // namespace hydrant::fetch
