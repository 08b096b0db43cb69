// One reader's wait for a range: the loop that the kernel's on-demand consumer ran over prepare-read (spec 7.5).
#pragma once

#include <memory>
#include <mutex>

#include "base/byte_range.h"
#include "cachefiles/backing_file.h"
#include "cachefiles/engine.h"
#include "cachefiles/requests.h"

namespace hydrant::cachefiles {

class CookieCore;

// Held by the consumer, by the request it waits for, and by itself while a lookup goes on. It runs on whichever thread
// makes progress: the consumer's, or the one that answered.
class EnsureOp final : public Cookie::Wait, public std::enable_shared_from_this<EnsureOp> {
 public:
  // `range` is block aligned.
  EnsureOp(std::shared_ptr<CookieCore> cookie, ByteRange range, UniqueFunction<void(int)> done);
  ~EnsureOp() override;

  // Null: there is no data and there will be none; the reader gets -EIO.
  void start(std::shared_ptr<Object> object);
  void cancel() override;
  bool finished() const;

 private:
  void run(bool second_pass);
  void request(ByteRange hole);
  void trace_verdict(const char* verdict, const char* reason, uint64_t inode, uint64_t size) const;
  void finish(int result);

  std::shared_ptr<CookieCore> cookie_;  // these two until it is finished
  std::shared_ptr<Object> object_;
  ByteRange rest_;         // touched by one runner at a time
  uint64_t discards_ = 0;  // of the file, when it was asked for; as rest_

  mutable std::mutex mutex_;
  bool started_ = false;
  bool cancelled_ = false;
  bool finished_ = false;
  RequestPtr request_;
  UniqueFunction<void(int)> done_;
};

}  // namespace hydrant::cachefiles
