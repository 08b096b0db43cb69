// The guard of marked files as hydrantd has it: made when first needed, held by whoever outlives us, taken over.
#pragma once

#include <memory>
#include <mutex>

#include "base/descriptor_store.h"
#include "front/fanotify/marked_files.h"

namespace hydrant::daemon {

// Thread-safe.
class StoredMarks {
 public:
  // What a predecessor left in `store`, with the numbers of its events: before this process opens anything else.
  static front::HeldMarks left(DescriptorStore& store);

  StoredMarks(DescriptorStore& store, Duration read_limit) : store_(store), options_{.read_limit = read_limit} {}

  // Null: nobody has needed it yet. Once there it stays as long as this.
  front::MarkedFiles* now();
  // Makes it, and sees to it that somebody else holds it at this moment. kUnsupported, kDenied.
  Result<front::MarkedFiles*> get();
  // All that left() found.
  Result<> take_over(front::HeldMarks held, const front::MarkedFiles::CookieOf& cookie_of);
  // What is still read of the files has nobody to ask once we are gone: then the store keeps its descriptors, and their
  // holder denies it.
  void leave_to_the_holder();
  // Before the engine ends; this may go after it.
  void stop();

 private:
  void put();

  DescriptorStore& store_;
  const front::MarkedFilesOptions options_;
  std::mutex mutex_;
  std::unique_ptr<front::MarkedFiles> files_;
};

}  // namespace hydrant::daemon
