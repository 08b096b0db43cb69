// Makes the indexes of layers that have none: out of the table of contents that a layer carries, or else the layer
// streams by once, several at a time, and fills its device on the way.
#pragma once

#include <atomic>
#include <condition_variable>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <stop_token>
#include <string>

#include "base/digest.h"
#include "base/thread_pool.h"
#include "fetch/ingest.h"
#include "fetch/layer_reading.h"
#include "fetch/objects.h"
#include "fetch/origins.h"
#include "fetch/paths.h"

namespace hydrant::fetch {

struct LayerWanted {
  proto::SourceReference source;
  std::optional<bool> plain_http;
  Digest digest;  // of the stored blob
  uint64_t size = 0;
  Digest diff_id;
  std::string media_type;
  bool ingest = true;                      // fill the device too
  std::optional<image::TocReference> toc;  // tried first
  bool tarball = false;                    // a remote file: `digest` is its device's key, and nobody knows its digests
};

// Thread-safe.
class LayerStreamer {
 public:
  // All but `begin_ingest` outlive the streamer. `streams`: 1..16 layers at a time.
  LayerStreamer(Paths paths, Origins& origins, Objects& objects, BeginIngest begin_ingest, unsigned streams);
  ~LayerStreamer();

  class Job;
  // One asker's interest in a layer. When the last ticket of a layer goes, its stream is given up.
  class Ticket {
   public:
    Ticket(LayerStreamer& streamer, std::shared_ptr<Job> job) : streamer_(&streamer), job_(std::move(job)) {}
    Ticket(Ticket&& other) noexcept = default;
    Ticket& operator=(Ticket&&) = delete;
    ~Ticket();
    uint64_t done() const;   // stored bytes that have come
    uint64_t total() const;  // no more than these; fewer once a table of contents serves
    // The outcome; nothing while it is under way at the deadline. After success the index stands in the store: the one
    // by the table of contents, if there is one that serves, or else the layer's.
    std::optional<Result<>> wait(Deadline deadline);

   private:
    LayerStreamer* streamer_;
    std::shared_ptr<Job> job_;  // shared with the stream and the other askers
  };

  // Starts the stream, or joins the one under way for the same layer.
  Ticket stream(const LayerWanted& wanted);

 private:
  Result<> run(Job& job);
  Result<bool> index_by_toc(Job& job);
  void leave(const std::shared_ptr<Job>& job);

  const Paths paths_;
  Origins& origins_;
  Objects& objects_;
  const BeginIngest begin_ingest_;
  std::mutex mutex_;  // guards jobs_ and what Job says is guarded
  std::condition_variable finished_;
  std::map<Digest, std::shared_ptr<Job>> jobs_;  // under way
  ThreadPool pool_;
};

}  // namespace hydrant::fetch
