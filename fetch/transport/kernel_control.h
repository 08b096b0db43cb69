// The control channel that a kernel has: a descriptor of /dev/cachefiles (Linux 5.19 to 7.1), messages that carry
// anonymous descriptors, writes and an ioctl on those.
#pragma once

#include <memory>
#include <string>

#include "base/fd.h"
#include "fetch/transport/control.h"

namespace hydrant::fetch {

struct KernelControlOptions {
  std::string cache_dir;  // where the kernel keeps cache/ and graveyard/; absolute, one line of at most 4000 bytes
  std::string tag = "hydrant";  // the cache's name
  size_t slot_bytes = 4 << 20;  // one staging area; a multiple of 4096, 64 KiB..64 MiB
  unsigned slots = 8;           // staging areas; 1..64. Memory is taken when first touched
};

class KernelControl {
 public:
  // kNotFound: no such device; kDenied: not privileged; kBusy: somebody has it open, or handles of whoever had it last.
  static Result<Fd> open_device(const std::string& path);
  // Binds a cache in on-demand mode. On a device that an earlier process has bound it goes on with that cache: what was
  // not answered comes again after `restore`. kUnsupported: a kernel without the mode, or a file system that cannot be
  // a cache; kNoSpace: its disk is too full to begin; kGone: the kernel has given up the cache.
  //
  // `next` is kGone once the kernel has given up the cache, for an error of its disk. Handles outlive the control, but
  // keep the kernel's cache alive, so that nobody can open the device.
  static Result<std::unique_ptr<Control>> start(Fd device, const KernelControlOptions& options);
};

}  // namespace hydrant::fetch
