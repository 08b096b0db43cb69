// Which descriptors are ours.
//
// The library keeps no table that could be wrong: hydrantd's end of each of our sockets is bound to a name
// (proto/device.h), and the kernel tells it to whoever holds the other end, after dup, fork, exec and SCM_RIGHTS alike,
// and in the child of a vfork, whose memory is its parent's. What is kept is a byte a number that saves the question
// for numbers that never were ours. Thread-safe and async-signal-safe.
#pragma once

#include <cstdint>

#include "proto/device.h"

namespace hydrant::shim {

using proto::device::Kind;
using proto::device::Name;

// Numbers above are never ours: fs.nr_open's default.
inline constexpr int kMaxFd = 1 << 20;

// False for everything else. Never changes errno.
bool identify(int fd, Name* name);
inline bool is_kind(int fd, Kind kind, Name* name) { return identify(fd, name) && name->kind == kind; }

// `fd` came to be in a way that may have made it ours.
void fresh(int fd);
// `copy` refers to what `fd` refers to.
void copied(int fd, int copy);

// The end of the numbers that a sweep of the table must ask about: those that were ours, and those that an exec usually
// hands on.
int sweep_end();

}  // namespace hydrant::shim
