// Proves what is read by an index that nobody vouches for: the layer is read whole once, while nobody wants anything,
// and the index that it yields is compared with the one in use.
#pragma once

#include <condition_variable>
#include <functional>
#include <map>
#include <mutex>
#include <optional>
#include <stop_token>
#include <string>

#include "base/thread_pool.h"
#include "fetch/catalogue.h"
#include "fetch/fill_queue.h"
#include "fetch/layer_streamer.h"
#include "fetch/origins.h"

namespace hydrant::fetch {

// Thread-safe. One layer at a time.
class LateProofs {
 public:
  // Has what readers were given of a device forgotten, as far as that can be done.
  using Withdraw = std::function<Result<>(const std::string& device)>;
  // All outlive it; the queue is stopped before it goes.
  LateProofs(Origins& origins, LayerStreamer& streamer, FillQueue& queue, Withdraw withdraw);
  ~LateProofs();

  // The device of such a layer was opened. Returns at once. When the proof fails, the origin refuses to supply anything
  // more of the device, what was supplied is withdrawn, and the index is dropped, so that a restarted daemon has none.
  void expect(const ObjectRow& device) { expect(device, Clock::system().now() + kDelay); }
  void expect(const ObjectRow& device, Instant not_before);
  // For tests that wait: true once it is known whether the device is right.
  bool settled(const std::string& device, Deadline deadline);

 private:
  static constexpr Duration kDelay = std::chrono::seconds(2);  // a start comes first

  // What the index lies about, if it does; an error when that could not be found out.
  Result<std::optional<Error>> prove(const ObjectRow& device);
  Result<> enter_spans(const ObjectRow& device, const image::LayerIndex& used, const Digest& diff_id);
  Result<> wait_for(LayerStreamer::Ticket& ticket);

  Origins& origins_;
  LayerStreamer& streamer_;
  FillQueue& queue_;
  const Withdraw withdraw_;
  std::stop_source stop_;
  std::mutex mutex_;
  std::condition_variable settles_;
  std::map<std::string, bool> known_;  // device: proven or refused, or else under way
  ThreadPool pool_;
};

}  // namespace hydrant::fetch
