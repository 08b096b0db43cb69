// One system call of the program on one of our descriptors: a request that carries one end of a fresh socket pair, and
// the answer on the other end. Nothing is shared between callers, so threads, processes after a fork and signal
// handlers do not get in each other's way, and need no lock. Never changes errno.
#pragma once

#include <sys/uio.h>

#include <cstdint>

#include "proto/device.h"

namespace hydrant::shim {

struct Answer {
  long result = -EIO;  // hydrantd's, or why there is none: -EIO, -EFAULT, -EMFILE, -ENFILE
  bool sent = false;
  uint16_t flags = 0;
  size_t size = 0;  // bytes stored in `out`
  int passed = -1;  // a descriptor that came along, close-on-exec
  int reply = -1;   // our end of the pair, with Request::keep_reply; close-on-exec
};

struct Request {
  int socket = -1;
  const proto::channel::Head* head = nullptr;
  const iovec* body = nullptr;  // sent behind the head, from the program's memory
  size_t body_parts = 0;
  int passed = -1;  // beside the reply socket
  void* out = nullptr;
  size_t out_size = 0;
  bool keep_reply = false;  // and do not ask at all when the table is full
};
Answer call(const Request& request);

// Puts two descriptors aside, for calls of a program whose table is full. At an open.
void make_spare();

// Moves a descriptor of ours out of the way of the program's numbers; close-on-exec. The same one if it cannot.
int move_away(int fd);

}  // namespace hydrant::shim
