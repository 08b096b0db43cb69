// Where the bytes of one object come from, opened when the first of them is missed and not before: a daemon without a
// network answers every OPEN.
#pragma once

#include <memory>
#include <string>

#include "base/clock.h"
#include "base/error.h"
#include "image/layout.h"
#include "source/source.h"

namespace hydrant::fetch {

// Thread-safe. Both may block on the disk or the network, so they are called by workers only. What they yield stays
// valid without the origin.
class Origin {
 public:
  virtual ~Origin() = default;
  // Who may keep a blob's reads waiting, a host for instance; the same text for all that it serves. Empty: nobody, it
  // is all local. Does not block.
  virtual std::string place() const { return {}; }
  // Whether the object holds many files, which are read here and there, and not one.
  virtual bool many_files() const { return false; }
  virtual Result<std::shared_ptr<const image::Layout>> layout() = 0;
  // A failed blob is opened anew at the next call.
  virtual Result<std::shared_ptr<source::Blob>> blob(Deadline deadline) = 0;
  // `blob` is refused by whoever serves it. The next blob() opens anew, with the credentials of that time.
  virtual void forget(const std::shared_ptr<source::Blob>& blob) = 0;
};

}  // namespace hydrant::fetch
