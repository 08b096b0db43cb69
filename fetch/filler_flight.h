// What a filler keeps of one READ and of one fetch; for the files of Filler alone.
#pragma once

#include "fetch/filler.h"

namespace hydrant::fetch {

// One READ. Ends when `missing` granules have come, or at the first failure of one of them.
struct Filler::Waiter {
  ByteRange range;
  Deadline deadline;
  Done done;            // empty once called
  size_t missing = 0;   // claims that list this waiter
  bool looked = false;  // the cache was asked whether it has what we wrote a moment ago
};

// One fetch, queued or running. `wanted` grows while it is queued and shrinks to what is left when it is tried again.
struct Filler::Flight {
  ByteRange wanted;  // whole granules
  Priority priority = Priority::kDemand;
  Deadline ahead_deadline{Instant::max()};  // of a flight that nobody waits for
  bool running = false;
  bool piece = false;  // of a run: whoever fetches the next one goes on at its end (image::Layout::plan_piece)
  unsigned attempts = 0;
  unsigned corrupt = 0;
  uint64_t marker = UINT64_MAX;  // index of the granule that is held back
  Buffer ready;                  // of a flight that only writes what was held
  FillQueue::Ticket ticket;
};

}  // namespace hydrant::fetch
