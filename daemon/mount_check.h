// Whether what is read through a new mount is really asked for (docs/decisions/017-fanotify.md).
#pragma once

#include "base/error.h"
#include "base/fd.h"
#include "front/fanotify/marked_files.h"

namespace hydrant::daemon {

// Reads a byte of files of the mount (O_PATH of its root, it may stand nowhere yet) until one raises an event. Nothing
// is fetched. kUnsupported: with `all_marked`, when every byte of file data that is no part of the metadata lies in
// marked files, and one was read without an event. Where no file has data there is nothing to be shown.
Result<> self_test(const Fd& mount, front::MarkedFiles& marks, bool all_marked);

}  // namespace hydrant::daemon
