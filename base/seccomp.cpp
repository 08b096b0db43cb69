// A seccomp filter out of a list of numbers. Allowed calls come first, in the list's order; a kernel from 5.11 on finds
// out once which numbers are always allowed and runs the program for the others alone.
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>

#include "base/privileges.h"

namespace hydrant {

namespace {

#if defined(__x86_64__)
constexpr uint32_t kArchitecture = AUDIT_ARCH_X86_64;
#elif defined(__aarch64__)
constexpr uint32_t kArchitecture = AUDIT_ARCH_AARCH64;
#else
constexpr uint32_t kArchitecture = 0;
#endif

constexpr uint32_t kNewestKnown = 450;  // set_mempolicy_home_node, Linux 5.17
constexpr uint32_t kNamespaces =
    CLONE_NEWNS | CLONE_NEWCGROUP | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNET;
constexpr uint32_t kNumber = offsetof(seccomp_data, nr), kArch = offsetof(seccomp_data, arch);
// The lower half, on machines that have it first; all that Hydrant runs on do.
constexpr uint32_t kFirstArgument = offsetof(seccomp_data, args);

class Program {
 public:
  void load(uint32_t offset) { add(BPF_LD | BPF_W | BPF_ABS, offset); }
  void answer(uint32_t action) { add(BPF_RET | BPF_K, action); }
  // Each passes over the next `count` instructions, or goes on with them.
  void if_equal_skip(uint32_t value, uint8_t count) { add(BPF_JMP | BPF_JEQ | BPF_K, value, count, 0); }
  void unless_equal_skip(uint32_t value, uint8_t count) { add(BPF_JMP | BPF_JEQ | BPF_K, value, 0, count); }
  void if_any_bit_skip(uint32_t bits, uint8_t count) { add(BPF_JMP | BPF_JSET | BPF_K, bits, count, 0); }
  void if_above_skip(uint32_t value, uint8_t count) { add(BPF_JMP | BPF_JGT | BPF_K, value, count, 0); }
  sock_fprog finished() { return {static_cast<unsigned short>(code_.size()), code_.data()}; }

 private:
  void add(int code, uint32_t value, uint8_t yes = 0, uint8_t no = 0) {
    code_.push_back({static_cast<uint16_t>(code), yes, no, value});
  }
  std::vector<sock_filter> code_;
};

constexpr uint32_t refuse(int error) { return SECCOMP_RET_ERRNO | static_cast<uint32_t>(error); }

void allow_socket(Program& program) {
  constexpr uint32_t kFamilies[] = {AF_UNIX, AF_INET, AF_INET6, AF_NETLINK};
  program.unless_equal_skip(SYS_socket, 2 + 2 * std::size(kFamilies));
  program.load(kFirstArgument);
  for (uint32_t family : kFamilies) {
    program.unless_equal_skip(family, 1);
    program.answer(SECCOMP_RET_ALLOW);
  }
  program.answer(refuse(EAFNOSUPPORT));
}

void allow_clone(Program& program) {
  program.unless_equal_skip(SYS_clone, 4);
  program.load(kFirstArgument);
  program.if_any_bit_skip(kNamespaces, 1);
  program.answer(SECCOMP_RET_ALLOW);
  program.answer(refuse(EPERM));
}

Program filter_of(std::span<const int> allowed) {
  Program program;
  program.load(kArch);
  program.if_equal_skip(kArchitecture, 1);
  program.answer(SECCOMP_RET_KILL_PROCESS);
  program.load(kNumber);
  for (int number : allowed) {
    if (number == SYS_socket) {
      allow_socket(program);
    } else if (number == SYS_clone) {
      allow_clone(program);
    } else {
      program.unless_equal_skip(static_cast<uint32_t>(number), 1);
      program.answer(SECCOMP_RET_ALLOW);
    }
  }
  program.unless_equal_skip(SYS_clone3, 1);
  program.answer(refuse(ENOSYS));
  program.if_above_skip(kNewestKnown, 1);
  program.answer(refuse(EPERM));
  program.answer(refuse(ENOSYS));
  return program;
}

}  // namespace

Result<> restrict_system_calls(std::span<const int> allowed) {
  if (kArchitecture == 0) return fail(Code::kUnsupported, "no filter of system calls for this kind of machine");
  Program program = filter_of(allowed);
  const sock_fprog finished = program.finished();
  // Refusals show in the kernel's log where it can do that, Linux 4.14 and later.
  for (unsigned long flags : {SECCOMP_FILTER_FLAG_LOG, 0ul})
    if (::syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &finished) == 0) return {};
  if (errno == ENOSYS || errno == EINVAL) return fail(Code::kUnsupported, "this kernel has no seccomp filters");
  return fail_sys(errno, "seccomp");
}

}  // namespace hydrant
