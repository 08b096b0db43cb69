// What hydrant-fetchd gives up before it says a word to a network. docs/privileges.md has the table, docs/decisions/015
// the reasons.
#pragma once

#include <string>
#include <vector>

#include "base/error.h"
#include "fetch/paths.h"

namespace hydrant::fetch {

// The parts that a setting can leave out (fetchd.toml: unconfined).
inline const std::vector<std::string> kConfinementParts = {"user", "capabilities", "landlock", "seccomp"};

struct ConfinementOptions {
  // Whom to become when root starts us; empty: the user "hydrant", or kOwnUid where the machine has none.
  std::string user;
  std::vector<std::string> unconfined;  // of kConfinementParts
  // A kernel's device and the cache behind it; empty with hydrantd. Opening the device again needs root and
  // CAP_SYS_ADMIN, so there the user stays.
  std::string device;
  std::string cache_dir;
};

// Between the users that a distribution hands out (to 65535) and those of containers (from 100000), so nobody's.
inline constexpr unsigned kOwnUid = 87539;

// What came of it; parts that the kernel does not have are missing, and are in the log.
struct Confinement {
  int landlock = 0;                 // the kernel's version; 0: none
  std::vector<std::string> writes;  // what Landlock leaves writable
};

// For the main thread, before it starts another and with its root's lock held. The state below the root becomes the
// user's. kNotFound: the user of the options does not exist; kDenied or kIo: state that cannot be given to the user.
Result<Confinement> confine(const Paths& paths, const ConfinementOptions& options);

// The last steps alone, for programs that try what is left (tests).
Confinement confine_calls_and_files(const Paths& paths, const ConfinementOptions& options);

}  // namespace hydrant::fetch
