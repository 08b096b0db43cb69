// The guard: the last process that holds a fanotify group. Where nobody holds it the kernel reads holes as zeros, and
// the keeper and hydrantd can be killed; so while files are marked the keeper has a child that does nothing but outlive
// them, and denies every read once both are gone.
#pragma once

#include <cstdint>
#include <iterator>
#include <string_view>

#include "daemon/keeper/descriptors.h"

namespace hydrant::daemon::keeper {

// What hydrantd calls the descriptors: the group, which must not close, and what a successor needs to know of it.
inline constexpr std::string_view kGuarded = "fanotify";
inline constexpr std::string_view kGuardedNames[] = {kGuarded, "fanotify-files", "fanotify-events"};
inline constexpr size_t kGuardedCount = std::size(kGuardedNames);
inline constexpr std::string_view kGuardedPrefix = "fanotify";  // so begin all of them

// There may be an earlier one that a keeper left and the next did not find: it was busy, or not listening yet. It must
// not deny what the next hydrantd serves. So guards are numbered, in the record of events, which goes where the group
// goes: one that sees a later one run ends.
//
// No allocation. Owned by the keeper's only thread.
class Guard {
 public:
  // Where a guard that outlived its keeper gives back what it holds; and our first argument, which it writes its name
  // over.
  void prepare(const char* socket_path, char* name);
  // What a guard holds that an earlier keeper left; it ends.
  void inherit(Descriptors& into);
  // A new one in the place of the old one, if there is something to guard. `hydrantd` lives, or is 0.
  void renew(const Descriptors& held, int hydrantd);
  // It denies every read from now on, until it is renewed.
  void deny();
  bool denies() const { return denies_; }
  void end();
  int pid() const { return pid_; }

 private:
  [[noreturn]] void serve(const int (&held)[kGuardedCount], int keeper, int hydrantd, uint64_t number);

  const char* socket_path_ = nullptr;
  char* name_ = nullptr;
  int pid_ = 0;
  int pipe_ = -1;  // its end says that we are gone
  bool denies_ = false;
};

}  // namespace hydrant::daemon::keeper
