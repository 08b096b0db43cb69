// The thinnest front: a function call. For tests, benches and programs that link the library.
#pragma once

#include "base/clock.h"
#include "base/error.h"
#include "cachefiles/engine.h"

namespace hydrant::front {

// Reads `out.size()` bytes at `offset`, asking the user daemon for what is missing and waiting for it. Yields the byte
// count, short only at the end of the object. kTooSlow when the deadline passes first (the request is withdrawn then).
Result<size_t> read(const std::shared_ptr<cachefiles::Cookie>& cookie, MutableBytes out, uint64_t offset,
                    Deadline deadline);

}  // namespace hydrant::front
