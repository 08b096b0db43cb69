// Filling a whole object while its layer streams by: hydrantd uses the cookie for us, so that its OPEN comes.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "base/clock.h"
#include "base/error.h"
#include "proto/admin.h"

namespace hydrant::fetch {

// One ingest under way. Destroyed without end(): the object is retired, nothing half-made stays.
class Ingestion {
 public:
  virtual ~Ingestion() = default;
  // The object is here and complete already: nothing needs to be written.
  virtual bool present() const = 0;
  // Everything is written and proven; the object is `size` bytes long, and hashes to `proof`.
  virtual Result<> end(uint64_t size, const proto::DeviceProof& proof, Deadline deadline) = 0;
};

// Returns when the object is open and its OPEN has been answered. kBusy: a mount is using it.
using BeginIngest = std::function<Result<std::unique_ptr<Ingestion>>(const std::string& id, Deadline deadline)>;

// Through hydrantd's admin socket.
BeginIngest ingest_through(std::string hydrantd_socket);
// For a kernel's cache, whose objects open when they are mounted and not before: kBusy always, so a layer streams by
// for its index alone, and its device is filled by its readers.
BeginIngest no_ingest();

}  // namespace hydrant::fetch
