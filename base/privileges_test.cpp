#include "base/privileges.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/capability.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <functional>

#include "base/file.h"
#include "base/temporary_directory.h"

namespace hydrant {
namespace {

constexpr int kMissing = 77;  // the kernel cannot do it, or we may not

// What is given up stays given up, so each test gives it up in a child. `body` returns the number of its failed line.
int in_child(const std::function<int()>& body) {
  const pid_t child = ::fork();
  if (child == 0) ::_exit(body());
  int status = -1;
  EXPECT_EQ(::waitpid(child, &status, 0), child);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

#define HOLDS(condition) \
  if (!(condition)) return __LINE__ % 256

void expect_held(int line) {
  if (line == kMissing) GTEST_SKIP() << "this kernel, or this user, cannot";
  EXPECT_EQ(line, 0) << "the line (modulo 256) of what did not hold";
}

TEST(Privileges, UsersHaveNamesOrNumbers) {
  EXPECT_EQ(find_user("root")->uid, 0u);
  EXPECT_EQ(find_user("87539")->gid, 87539u);
  EXPECT_EQ(find_user("no-such-user-here").error().code, Code::kNotFound);
  EXPECT_EQ(find_user("").error().code, Code::kNotFound);
  EXPECT_EQ(find_user("-1").error().code, Code::kNotFound);
}

TEST(Privileges, CapabilitiesThatAreNotWantedAreGone) {
  if (::geteuid() != 0) GTEST_SKIP() << "needs root";
  expect_held(in_child([] {
    HOLDS(keep_capabilities(capability_set({CAP_DAC_READ_SEARCH})));
    HOLDS(::prctl(PR_CAPBSET_READ, CAP_DAC_READ_SEARCH, 0, 0, 0) == 1);
    HOLDS(::prctl(PR_CAPBSET_READ, CAP_SYS_ADMIN, 0, 0, 0) == 0);
    HOLDS(::chown("/", 1, 1) == -1 && errno == EPERM);
    HOLDS(read_file("/proc/self/status")->find("CapEff:\t0000000000000004\n") != std::string::npos);
    // A second time, without the right to change the bounding set.
    HOLDS(keep_capabilities(0));
    HOLDS(read_file("/proc/self/status")->find("CapPrm:\t0000000000000000\n") != std::string::npos);
    return 0;
  }));
}

TEST(Privileges, AnotherUserKeepsWhatItIsLeft) {
  if (::geteuid() != 0) GTEST_SKIP() << "needs root";
  TemporaryDirectory directory;  // root's alone
  ASSERT_TRUE(write_file_atomic(directory.path() + "/secret", as_bytes("x")));
  const std::string secret = directory.path() + "/secret";
  expect_held(in_child([&] {
    if (auto changed = become_user({87539, 87539}); !changed) return kMissing;
    HOLDS(keep_capabilities(capability_set({CAP_DAC_READ_SEARCH})));
    HOLDS(::prctl(PR_CAPBSET_READ, CAP_SYS_ADMIN, 0, 0, 0) == 0);
    HOLDS(::getuid() == 87539 && ::getegid() == 87539 && ::getgroups(0, nullptr) == 0);
    HOLDS(::setuid(0) == -1);
    HOLDS(read_file(secret));
    HOLDS(open_file(secret, O_RDWR).error().code == Code::kDenied);
    HOLDS(keep_capabilities(0));
    HOLDS(read_file(secret).error().code == Code::kDenied);
    return 0;
  }));
}

TEST(Privileges, FilesOutsideAreNotWritten) {
  TemporaryDirectory inside, outside;
  const std::string in = inside.path(), out = outside.path();
  ASSERT_TRUE(write_file_atomic(out + "/old", as_bytes("x")));
  expect_held(in_child([&] {
    HOLDS(forbid_new_privileges());
    Fd held = *open_file(out + "/held", O_RDWR | O_CREAT);
    auto version = restrict_files({.write = {in, "/dev/null", out + "/not-there"}});
    if (!version && version.error().code == Code::kUnsupported) return kMissing;
    HOLDS(version && *version >= 1);
    HOLDS(write_file_atomic(in + "/new", as_bytes("x")));
    HOLDS(make_directories(in + "/a/b"));
    HOLDS(open_file("/dev/null", O_WRONLY));
    HOLDS(read_file(out + "/old"));
    HOLDS(::write(held.get(), "x", 1) == 1);
    HOLDS(open_file(out + "/old", O_WRONLY).error().sys == EACCES);
    HOLDS(open_file(out + "/new", O_WRONLY | O_CREAT).error().sys == EACCES);
    HOLDS(::mkdir((out + "/d").c_str(), 0700) == -1 && errno == EACCES);
    HOLDS(::unlink((out + "/old").c_str()) == -1 && errno == EACCES);
    HOLDS(::rename((in + "/new").c_str(), (out + "/new").c_str()) == -1);
    return 0;
  }));
}

TEST(Privileges, OtherSystemCallsFail) {
  static constexpr int kAllowed[] = {SYS_read,       SYS_write,  SYS_openat, SYS_close,  SYS_newfstatat,
                                     SYS_exit_group, SYS_clone,  SYS_wait4,  SYS_socket, SYS_rt_sigaction,
                                     SYS_mmap,       SYS_munmap, SYS_brk,    SYS_futex,  SYS_rt_sigprocmask,
                                     SYS_sigaltstack};  // the last is AddressSanitizer's
  expect_held(in_child([] {
    HOLDS(forbid_new_privileges());
    auto done = restrict_system_calls(kAllowed);
    if (!done && done.error().code == Code::kUnsupported) return kMissing;
    HOLDS(done);
    HOLDS(open_file("/dev/null", O_RDONLY));
    HOLDS(::syscall(SYS_getpid) == -1 && errno == EPERM);
    HOLDS(::syscall(SYS_mount, "none", "/", "tmpfs", 0, nullptr) == -1 && errno == EPERM);
    HOLDS(::syscall(SYS_clone3, nullptr, 0) == -1 && errno == ENOSYS);
    HOLDS(::syscall(100'000) == -1 && errno == ENOSYS);
    HOLDS(Fd(::socket(AF_INET, SOCK_STREAM, 0)));
    HOLDS(::socket(AF_PACKET, SOCK_RAW, 0) == -1 && errno == EAFNOSUPPORT);
    HOLDS(::syscall(SYS_clone, CLONE_NEWUSER | SIGCHLD, nullptr, nullptr, nullptr, nullptr) == -1 && errno == EPERM);
    return 0;
  }));
}

// No unprivileged process could take a filter otherwise.
TEST(Privileges, AFilterNeedsTheVow) {
  if (::geteuid() != 0) GTEST_SKIP() << "needs root";
  static constexpr int kAllowed[] = {SYS_exit_group};
  expect_held(in_child([] {
    HOLDS(keep_capabilities(0));
    HOLDS(restrict_system_calls(kAllowed).error().sys == EACCES);
    HOLDS(!restrict_files({}));
    return 0;
  }));
}

}  // namespace
}  // namespace hydrant
