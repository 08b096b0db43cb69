// One fanotify group for permission events before reads: its system calls, and nothing else.
#pragma once

#include <cstddef>
#include <set>
#include <vector>

#include "base/byte_range.h"
#include "base/error.h"
#include "base/fd.h"

namespace hydrant::front {

// A read (or write) that the kernel holds back until it is answered.
struct FanEvent {
  int fd = -1;      // of the file, read-write, whose own use raises no events; its number is the name of the event
  int thread = 0;   // who reads, as our PID namespace numbers it
  ByteRange range;  // of the file; empty for a change of its length
};

// Linux >= 6.14; what it does is measured by tests/front/marked_files_kernel_test.cpp. Thread-safe.
class FanGroup {
 public:
  // With an unlimited queue: where it is limited, what does not fit is read as it stands. kUnsupported, kDenied.
  static Result<FanGroup> create();
  explicit FanGroup(Fd group) : group_(std::move(group)) {}

  const Fd& fd() const { return group_; }

  // Whoever opens the file of `file` (not O_PATH) from now on raises an event with each read that misses his page
  // cache. Who has it open already does not. kUnsupported: its file system has no such events (tmpfs, overlay, FUSE).
  Result<> mark(const Fd& file);
  Result<> unmark(const Fd& file);

  // The next one, or a few; empty when there is none. Not all that are there: between this and the caller's record of
  // them they are lost when this process is killed, and their readers get an error for each. An event that finds no
  // free descriptor here is denied by the kernel.
  std::vector<FanEvent> read();

  // The reader goes on, or gets EIO. Does not close the descriptor.
  void answer(int fd, bool allow);
  // Denies every event that a dead process read and did not answer, but for the numbers in `spared`: events are known
  // by numbers alone, and a new event that got the number of an old one could not be told from it. Before the first
  // read(). The kernel asks once more for a read-ahead that was denied, so that hardly a reader notices. Their count.
  size_t deny_read_ones(const std::set<int>& spared);

 private:
  Fd group_;
};

}  // namespace hydrant::front
