// The control channel over hydrantd's socket: frames of proto/channel.h.
#pragma once

#include <memory>
#include <string>

#include "base/fd.h"
#include "fetch/transport/control.h"

namespace hydrant::fetch {

struct SocketControlOptions {
  unsigned credits = 256;                            // requests the server may deliver ahead of `next`; 1..512
  size_t slot_bytes = 4 << 20;                       // one staging area; a multiple of 4096, 64 KiB..64 MiB
  unsigned slots = 8;                                // staging areas; 1..64. Memory is taken when first touched
  unsigned lanes = 4;                                // sockets for the data of all handles; 0: one each; up to 16
  Duration call_timeout = std::chrono::seconds(60);  // a server that answers slower than this counts as lost
};

class SocketControl {
 public:
  // Joins the channel that hydrantd opened and bound. kBusy while another user daemon is attached; kNotFound and
  // kUnreachable when nobody serves `path`; kDenied when this uid may not.
  static Result<std::unique_ptr<Control>> attach(const std::string& path, Deadline deadline,
                                                 SocketControlOptions options = {});
  // As open("/dev/cachefiles") does: a channel of its own, unbound; destroying it releases the channel. kBusy while
  // the cache's only slot is taken.
  static Result<std::unique_ptr<Control>> open(const std::string& path, Deadline deadline,
                                               SocketControlOptions options = {});
};

}  // namespace hydrant::fetch
