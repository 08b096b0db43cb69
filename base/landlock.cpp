// Landlock by its system calls: the C library has no words for them. The numbers are those of linux/landlock.h, of
// which a distribution's copy may be older than the kernel.
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>

#include "base/file.h"
#include "base/privileges.h"

namespace hydrant {

namespace {

constexpr long kCreateRuleset = 444, kAddRule = 445, kRestrictSelf = 446;  // the same on every architecture
constexpr unsigned kAskVersion = 1;
constexpr int kPathBeneath = 1;

// struct landlock_ruleset_attr; a kernel of an earlier version takes its beginning.
struct Ruleset {
  uint64_t files;
  uint64_t network;  // version 4
  uint64_t scoped;   // version 6
};
struct __attribute__((packed)) PathRule {
  uint64_t allowed;
  int32_t parent;
};

constexpr uint64_t kWriteFile = 1 << 1;
constexpr uint64_t kRemoveAndMake = 0x1ff0;   // bits 4 to 12: remove_dir and _file, make_* of seven kinds
constexpr uint64_t kRefer = 1 << 13;          // version 2
constexpr uint64_t kTruncate = 1 << 14;       // version 3
constexpr uint64_t kDeviceControl = 1 << 15;  // version 5
constexpr uint64_t kScopeAbstractSockets = 1 << 0, kScopeSignals = 1 << 1;

Ruleset ruleset_of(int version) {
  Ruleset out{.files = kWriteFile | kRemoveAndMake, .network = 0, .scoped = 0};
  if (version >= 2) out.files |= kRefer;
  if (version >= 3) out.files |= kTruncate;
  if (version >= 5) out.files |= kDeviceControl;
  if (version >= 6) out.scoped = kScopeAbstractSockets | kScopeSignals;
  return out;
}

size_t size_of(int version) {
  return version >= 6 ? sizeof(Ruleset) : version >= 4 ? offsetof(Ruleset, scoped) : offsetof(Ruleset, network);
}

Result<> add(int ruleset, const std::string& path, uint64_t rights) {
  Fd place(::open(path.c_str(), O_PATH | O_CLOEXEC));
  if (!place && errno == ENOENT) return {};
  struct stat status {};
  if (!place || ::fstat(place.get(), &status)) return fail_sys(errno, "open " + path);
  if (!S_ISDIR(status.st_mode)) rights &= kWriteFile | kTruncate | kDeviceControl;
  PathRule rule{rights, place.get()};
  if (::syscall(kAddRule, ruleset, kPathBeneath, &rule, 0)) return fail_sys(errno, "Landlock rule for " + path);
  return {};
}

}  // namespace

Result<int> restrict_files(const FileRules& rules) {
  const long version = ::syscall(kCreateRuleset, nullptr, 0, kAskVersion);
  if (version < 1) return fail(Code::kUnsupported, "this kernel has no Landlock, or has it switched off");
  const Ruleset all = ruleset_of(static_cast<int>(version));
  Fd ruleset(static_cast<int>(::syscall(kCreateRuleset, &all, size_of(static_cast<int>(version)), 0)));
  if (!ruleset) return fail_sys(errno, "Landlock");
  for (const auto& path : rules.write) HYDRANT_TRY_VOID(add(ruleset.get(), path, all.files));
  if (::syscall(kRestrictSelf, ruleset.get(), 0)) return fail_sys(errno, "Landlock");
  return static_cast<int>(version);
}

}  // namespace hydrant
