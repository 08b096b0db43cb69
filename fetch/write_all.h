// Writing through an object's handle with the patience that the protocol asks for.
#pragma once

#include <stop_token>

#include "fetch/transport/control.h"

namespace hydrant::fetch {

// Writes all of `bytes`. A handle refuses with ENOBUFS from copen until the cache has attached the backing file, and
// when the disk is full: such writes are repeated for `patience`, then it is kNoSpace. kCancelled when stopped; kGone
// when the cache has left.
Result<> write_all(ObjectHandle& handle, Bytes bytes, uint64_t offset, std::stop_token stop, Duration patience);

}  // namespace hydrant::fetch
