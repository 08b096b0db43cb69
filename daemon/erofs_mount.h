// EROFS over regular files: metadata as the primary, one file a device. Where the kernel mounts it from block devices
// alone (before Linux 6.12, or built without file-backed mounts), over a loop device for each.
#pragma once

#include <string>
#include <vector>

#include "base/error.h"
#include "base/fd.h"

namespace hydrant::daemon {

// The kernel's window for reads through the mount, which is also what one page fault asks for. A window above 1 MiB
// makes faults slow; what a stream needs beyond is fetched ahead by the user daemon.
inline constexpr unsigned kDefaultReadAheadKb = 128;

struct ErofsSource {
  Fd primary;               // complete and verified
  std::vector<Fd> devices;  // in slot order: nothing in the image checks it
  unsigned read_ahead_kb = kDefaultReadAheadKb;
  bool files_only = false;  // no loop devices: they raise no events, and what reads them is the kernel
};

// A mount that stands nowhere yet; closing the descriptor ends it.
struct ErofsMount {
  Fd mount;            // O_PATH, for attach_mount
  std::string device;  // "major:minor", as mountinfo shows it
  // erofs-N, the name of its bdi in sysfs, which no other file system ever gets. Empty where several came at once.
  std::string super = {};
};

// kUnsupported where the kernel can do neither, kCorrupt when it refuses the image. The kernel opens the files once
// more; ours may be closed afterwards.
Result<ErofsMount> make_erofs_mount(const ErofsSource& source);

// Tries it with an image of one empty directory in a nameless file in `directory`: kUnsupported says what is missing.
// Whether files are enough, or it takes loop devices.
enum class ErofsBacking { kFiles, kLoopDevices };
Result<ErofsBacking> probe_erofs(const std::string& directory);

}  // namespace hydrant::daemon
