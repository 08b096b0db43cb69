// Block devices over files, for kernels whose file systems mount nothing else.
#pragma once

#include "base/error.h"
#include "base/fd.h"

namespace hydrant {

// A loop device that reads `file`, whose size is a multiple of 4096. Its blocks have 4096 bytes, it is read-only, and
// it lets go of the file with its last user, however that one ends: while nothing is mounted that is the descriptor
// yielded. kUnsupported: there are no loop devices here.
Result<Fd> attach_loop(const Fd& file);

}  // namespace hydrant
