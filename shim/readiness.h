// What poll, select and epoll wait on in the place of a device: a socket that hydrantd keeps in step with the device's
// mask, so that the kernel does the waiting, with its timeouts, signals and other descriptors.
#pragma once

#include <poll.h>
#include <sys/epoll.h>
#include <sys/select.h>

#include "shim/identity.h"

namespace hydrant::shim {

// Calls of which each descriptor is ours or not. They return as libc's functions do, and fail as those do.
int poll_calls(pollfd* fds, nfds_t count, const timespec* timeout, const sigset_t* mask);
int select_calls(int count, fd_set* in, fd_set* out, fd_set* except, timespec* timeout, const sigset_t* mask);
int epoll_ctl_calls(int epoll, int operation, int fd, epoll_event* event, const Name& name);

// True when one of them is ours.
bool any_ours(const pollfd* fds, nfds_t count);
bool any_ours(int count, const fd_set* in, const fd_set* out, const fd_set* except);

// A close of `fd` ends what epoll waits for on it.
void forget_registrations(int fd);

}  // namespace hydrant::shim
