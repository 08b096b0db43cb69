// What a process may still do: its user, its capabilities, the system calls and the files that are left to it.
// Everything here takes away, nothing gives back. For the main thread before it starts another: what the kernel takes
// from one thread it does not take from its neighbours.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <initializer_list>
#include <span>
#include <string>
#include <vector>

#include "base/error.h"

namespace hydrant {

// A set of linux/capability.h's numbers, as a mask.
using Capabilities = uint64_t;
constexpr Capabilities capability_set(std::initializer_list<int> numbers) {
  Capabilities out = 0;
  for (int number : numbers) out |= Capabilities(1) << number;
  return out;
}

struct User {
  uid_t uid = 0;
  gid_t gid = 0;
};

// A name of the machine's user database, or a number, which then is the group's, too. kNotFound for a name that nobody
// has.
Result<User> find_user(const std::string& name);

// User, group and no further groups. What is effective goes, what is permitted stays, for keep_capabilities to choose
// from. kInvalid where the number has no meaning (a user namespace without it), kDenied when we may not.
Result<> become_user(User user);

// Of what we have, these stay effective and permitted, and can be gained by programs we run when `inherited`; the
// others go, from the bounding set as well where we may change that (CAP_SETPCAP).
Result<> keep_capabilities(Capabilities wanted, bool inherited = false);

// No program we run gains anything by its file: no setuid bit, no file capabilities.
Result<> forbid_new_privileges();

// Landlock. What is not below these may not be written, made, renamed or removed; descriptors that are open keep what
// they can. What may be read is not limited. With it: no signals to processes outside, no foreign abstract sockets.
struct FileRules {
  std::vector<std::string> write;  // directories; or files, for writing alone
};
// Needs forbid_new_privileges. Yields the version of the kernel's Landlock. kUnsupported where it has none or has it
// switched off; an entry that does not exist is passed over.
Result<int> restrict_files(const FileRules& rules);

// seccomp: these calls and no others, by number. Another one fails with EPERM (and is in the kernel's log, where that
// is on); one that is newer than this program with ENOSYS, so that the C library falls back to what it knows; one of
// another architecture ends the process. Of the calls that are allowed, socket() makes local, IP and netlink sockets
// alone, and clone() no namespaces; clone3(), which cannot be looked into, does not exist. Needs forbid_new_privileges.
// kUnsupported where the kernel has no seccomp.
Result<> restrict_system_calls(std::span<const int> allowed);

}  // namespace hydrant
