#include "base/privileges.h"

#include <grp.h>
#include <linux/capability.h>
#include <pwd.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

namespace hydrant {

namespace {

constexpr int kCapabilityBits = 64;

struct CapabilityState {
  __user_cap_header_struct head{_LINUX_CAPABILITY_VERSION_3, 0};
  __user_cap_data_struct half[_LINUX_CAPABILITY_U32S_3]{};

  Capabilities permitted() const { return Capabilities(half[1].permitted) << 32 | half[0].permitted; }
  void set(Capabilities all, Capabilities inheritable) {
    for (int i = 0; i < 2; ++i) {
      half[i].effective = half[i].permitted = static_cast<uint32_t>(all >> (32 * i));
      half[i].inheritable = static_cast<uint32_t>(inheritable >> (32 * i));
    }
  }
};

}  // namespace

Result<User> find_user(const std::string& name) {
  if (!name.empty() && name.size() < 10 &&
      std::all_of(name.begin(), name.end(), [](char c) { return c >= '0' && c <= '9'; })) {
    const auto number = static_cast<uid_t>(std::stoul(name));
    return User{number, number};
  }
  errno = 0;
  const passwd* entry = ::getpwnam(name.c_str());
  if (!entry) return fail(Code::kNotFound, "no user is named '" + name + "'");
  return User{entry->pw_uid, entry->pw_gid};
}

Result<> become_user(User user) {
  if (::prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0)) return fail_sys(errno, "keep capabilities");
  if (::setgroups(0, nullptr)) return fail_sys(errno, "give up groups");
  if (::setresgid(user.gid, user.gid, user.gid)) return fail_sys(errno, "become group " + std::to_string(user.gid));
  if (::setresuid(user.uid, user.uid, user.uid)) return fail_sys(errno, "become user " + std::to_string(user.uid));
  return {};
}

Result<> keep_capabilities(Capabilities wanted, bool inherited) {
  CapabilityState state;
  if (::syscall(SYS_capget, &state.head, state.half)) return fail_sys(errno, "read capabilities");
  const Capabilities had = state.permitted(), kept = had & wanted;
  // The bounding set first, while we still may. A change of user leaves nothing effective.
  state.set(had, 0);
  if (::syscall(SYS_capset, &state.head, state.half)) return fail_sys(errno, "use capabilities");
  if (had >> CAP_SETPCAP & 1)
    for (int number = 0; number < kCapabilityBits && ::prctl(PR_CAPBSET_READ, number, 0, 0, 0) >= 0; ++number)
      if (!(wanted >> number & 1) && ::prctl(PR_CAPBSET_DROP, number, 0, 0, 0))
        return fail_sys(errno, "drop capability " + std::to_string(number));
  ::prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
  state.set(kept, inherited ? kept : 0);
  if (::syscall(SYS_capset, &state.head, state.half)) return fail_sys(errno, "drop capabilities");
  for (int number = 0; inherited && number < kCapabilityBits; ++number)
    if (kept >> number & 1 && ::prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, number, 0, 0))
      return fail_sys(errno, "pass on capability " + std::to_string(number));
  return {};
}

Result<> forbid_new_privileges() {
  if (::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)) return fail_sys(errno, "forbid new privileges");
  return {};
}

}  // namespace hydrant
