// How one flight of a Filler is run: fetched, decoded, handed to the cache and to who waits for it, tried again.
#include <cerrno>
#include <random>
#include <utility>

#include "base/log.h"
#include "fetch/fill_stream.h"
#include "fetch/filler_flight.h"
#include "fetch/write_all.h"

namespace hydrant::fetch {

namespace {

// Device bytes of one write to the cache.
constexpr uint64_t kBatch = 1 << 20;
// While bytes keep coming, a reader that follows them closely is answered so often: each answer wakes four threads,
// which costs more than a granule's decoding. One that has waited for longer than this is answered with the granule it
// is for.
constexpr Duration kFlushEvery = std::chrono::milliseconds(1);
// The most that a decoder and a connection hold of one fill, beside a granule in the making.
constexpr uint64_t kDecoding = 1 << 20;

// Uniform in [0.75, 1.25] of `duration`: a broken origin is not asked again by everybody at once.
Duration jittered(Duration duration) {
  thread_local std::minstd_rand random{std::random_device{}()};
  return Duration(duration.count() * (75 + static_cast<int64_t>(random() % 51)) / 100);
}

}  // namespace

// When the first of its readers gives up; for a flight without readers its own.
Deadline Filler::flight_deadline(Lock&, const FlightPtr& flight) const {
  const uint64_t granule = layout_->granule();
  Deadline soonest{Instant::max()};
  for (uint64_t index = flight->wanted.begin / granule; index * granule < flight->wanted.end; ++index)
    if (auto claim = claims_.find(index); claim != claims_.end())
      for (const WaiterPtr& waiter : claim->second.waiters)
        if (waiter->done) soonest = soonest.sooner(waiter->deadline);
  return soonest.at() == Instant::max() ? flight->ahead_deadline : soonest;
}

void Filler::run(const FlightPtr& flight, std::stop_token queue_stop) {
  std::shared_ptr<const image::Layout> layout;
  image::Fill fill;
  Deadline deadline{Instant::min()};
  Buffer ready;
  bool background = false;
  {
    Lock lock(mutex_);
    if (!handle_) return;  // close() has answered
    background = flight->priority == Priority::kBackground;
    flight->running = true;
    ++flight->attempts;
    layout = layout_;
    ready.swap(flight->ready);
    const uint64_t granule = layout->granule();
    // What an attempt before this one has finished is not asked for again.
    auto ours = [&](uint64_t index) {
      auto claim = claims_.find(index);
      return claim != claims_.end() && claim->second.flight == flight;
    };
    while (!flight->wanted.empty() && !ours(flight->wanted.begin / granule))
      flight->wanted.begin = std::min(round_down(flight->wanted.begin, granule) + granule, flight->wanted.end);
    if (flight->wanted.empty()) return;
    if (ready.empty()) {
      fill = flight->piece && flight->attempts == 1 ? layout->plan_piece(flight->wanted) : layout->plan(flight->wanted);
      // The neighbours that come along are ours too, unless somebody fetches them or they are here already.
      for (uint64_t index = fill.device.begin / granule; index * granule < fill.device.end; ++index)
        if (!held_.contains(index)) claims_.try_emplace(index, Claim{flight, {}});
      flight->wanted = fill.device;
    }
    deadline = flight_deadline(lock, flight);
  }

  // Background work ends when the queue wants its worker; all work with the filler.
  std::stop_source end;
  std::stop_callback closed(stop_.get_token(), [&] { end.request_stop(); });
  std::stop_callback makes_way(background ? queue_stop : std::stop_token(), [&] { end.request_stop(); });
  auto result = ready.empty() ? attempt(flight, *layout, fill, deadline, end.get_token())
                              : deliver(flight, ready, flight->wanted.begin);

  std::vector<WaiterPtr> failed;
  {
    Lock lock(mutex_);
    if (!handle_) return;
    if (!result && result.error().code == Code::kCorrupt && !result.error().retry)
      result.error().retry = ++flight->corrupt == 1;
    if (!result && background) {
      const bool made_way = queue_stop.stop_requested();
      if (made_way) result.error().retry = true;  // for readers that have joined: it is demand now
      background_failed_ |= !made_way;
    }
    if (result && !ready.empty()) {
      // Fetched, and counted, when it was held.
    } else if (result) {
      ++counters_->fills;
      if (flight->priority == Priority::kAhead) ++counters_->ahead_fills;
      if (flight->priority >= Priority::kPrefetch) ++counters_->prefetch_fills;
    } else {
      if (!again(lock, flight, result.error(), failed)) fail_claims(lock, flight, failed);
    }
  }
  if (failed.empty()) return;
  log::warn("fill.failed", {{"object", name_},
                            {"offset", fill.device.begin},
                            {"length", fill.device.size()},
                            {"readers", failed.size()},
                            {"reason", to_string(result.error().code)},
                            {"cause", result.error().what}});
  for (const WaiterPtr& waiter : failed) finish(waiter, result.error());
}

Result<> Filler::attempt(const FlightPtr& flight, const image::Layout& layout, const image::Fill& fill,
                         Deadline deadline, std::stop_token stop) {
  if (deadline.passed()) return fail({.code = Code::kTooSlow, .what = "the reader's deadline passed", .retry = true});
  if (stop.stop_requested()) return fail(Code::kCancelled, "not wanted any more");
  HYDRANT_TRY(auto blob, origin_->blob(deadline));
  HYDRANT_TRY(auto handle, open_handle());
  const uint64_t batch_bytes = std::max(std::min(kBatch, fill.device.size()), layout.granule());
  const uint64_t decoding = std::min(kDecoding, 2 * fill.device.size());
  HYDRANT_TRY(auto share,
              shop_.memory.take(batch_bytes + layout.decoder_memory() + decoding, flight->priority, deadline, stop));
  const Instant began = Clock::system().now();
  std::optional<Duration> first_byte;

  // Asked once a fill: it is a round trip. That it will prove from now on costs us a needless hash and no more.
  const bool proven_by_cache = handle->proves_writes();
  GranuleBatch batch(batch_bytes);
  Instant flushed_at{};  // long ago
  auto flush = [&]() -> Result<> {
    auto delivered = deliver(flight, batch.bytes(), batch.offset());
    batch.clear();  // also after a failure: it is not tried twice
    flushed_at = Clock::system().now();
    return delivered;
  };
  auto ran = stream_fill(
      layout, fill, *blob, deadline, stop,
      [&](uint64_t bytes) -> Result<> {
        counters_->fetched_bytes += bytes;
        if (bytes > 0 && !first_byte) first_byte = Clock::system().now() - began;
        if (bytes == 0) return awaited(batch) ? flush() : Result<>{};
        return flight->priority >= Priority::kPrefetch ? pay(flight, bytes, stop) : Result<>{};
      },
      [&](uint64_t offset, Bytes bytes) -> Result<> {
        if (!proven_by_cache) HYDRANT_TRY_VOID(layout.prove(offset, bytes));
        if (hold(flight, bytes, offset)) return flush();
        if (!batch.empty() && !batch.fits(bytes.size())) HYDRANT_TRY_VOID(flush());
        if (batch.empty()) {
          batch.begin(*handle, offset, bytes);
        } else {
          batch.add(bytes);
        }
        return Clock::system().now() - flushed_at >= kFlushEvery && awaited(batch) ? flush() : Result<>{};
      });
  // What was proven before an error is as good as ever.
  if (auto flushed = flush(); ran && !flushed) ran = flushed;
  if (!ran) {
    Error error = std::move(ran).error();
    if (error.code == Code::kUnauthorized || error.code == Code::kDenied) origin_->forget(blob);
    if (error.code == Code::kCorrupt && !error.retry)
      log::warn("fill.corrupt", {{"object", name_}, {"origin", blob->describe()}, {"offset", fill.device.begin}});
    return fail(std::move(error).in(blob->describe()));
  }
  double seconds = std::chrono::duration<double>(Clock::system().now() - began).count();
  auto speed = static_cast<uint64_t>(static_cast<double>(fill.device.size()) / std::max(seconds, 1e-6));
  log::debug("fill.done", {{"object", name_},
                           {"priority", static_cast<int>(flight->priority)},
                           {"offset", fill.device.begin},
                           {"length", fill.device.size()},
                           {"stored_at", fill.stored.begin},
                           {"stored", fill.stored.size()},
                           {"ms", static_cast<int64_t>(seconds * 1000)}});
  Lock lock(mutex_);
  speed_ = speed_ == 0 ? speed : (3 * speed_ + speed) / 4;
  // The least of late: what is above it was spent on a new connection, or in a queue.
  if (first_byte) latency_ = latency_ == Duration(0) ? *first_byte : std::min(*first_byte, latency_ + latency_ / 8);
  return {};
}

// True when a reader waits for a granule of the batch: it should not wait for those behind it.
bool Filler::awaited(const GranuleBatch& batch) {
  if (batch.empty()) return false;
  Lock lock(mutex_);
  const uint64_t granule = layout_->granule();
  for (uint64_t at = batch.offset(); at < batch.offset() + batch.bytes().size(); at += granule)
    if (auto claim = claims_.find(at / granule); claim != claims_.end() && !claim->second.waiters.empty()) return true;
  return false;
}

// Whether a reader waits for any granule of the flight.
bool Filler::awaited(Lock&, const FlightPtr& flight) const {
  const uint64_t granule = layout_->granule();
  for (uint64_t index = flight->wanted.begin / granule; index * granule < flight->wanted.end; ++index)
    if (auto claim = claims_.find(index);
        claim != claims_.end() && claim->second.flight == flight && !claim->second.waiters.empty())
      return true;
  return false;
}

// Keeps to the rate of what nobody waits for, until somebody does.
Result<> Filler::pay(const FlightPtr& flight, uint64_t bytes, std::stop_token stop) {
  if (!shop_.undemanded) return {};
  const Instant paid = shop_.undemanded->pay(bytes, Clock::system().now());
  Lock lock(mutex_);
  joined_.wait_until(lock, stop, paid, [&] { return awaited(lock, flight); });
  if (stop.stop_requested()) return fail(Code::kCancelled, "not wanted any more");
  return {};
}

// Keeps a stream's marker back, unless somebody waits for it already.
bool Filler::hold(const FlightPtr& flight, Bytes bytes, uint64_t offset) {
  Lock lock(mutex_);
  const uint64_t index = offset / layout_->granule();
  if (index != flight->marker || !handle_) return false;
  auto claim = claims_.find(index);
  if (claim == claims_.end() || claim->second.flight != flight || !claim->second.waiters.empty()) return false;
  claims_.erase(claim);
  held_[index] = {to_buffer(bytes), Clock::system().now()};
  return true;
}

Result<> Filler::deliver(const FlightPtr& flight, Bytes bytes, uint64_t offset) {
  if (bytes.empty()) return {};
  HYDRANT_TRY_VOID(write(bytes, offset));
  wrote(flight, {offset, offset + bytes.size()});
  return {};
}

Result<std::shared_ptr<ObjectHandle>> Filler::open_handle() {
  Lock lock(mutex_);
  if (!handle_) return fail(Code::kCancelled, name_ + ": the object was closed");
  return handle_;
}

Result<> Filler::write(Bytes bytes, uint64_t offset) {
  HYDRANT_TRY(auto handle, open_handle());
  auto written = write_all(*handle, bytes, offset, stop_.get_token(), shop_.options.attach_deadline);
  if (written) return {};
  // A cache that proves what is written says no more than that it failed.
  if (written.error().sys == EIO && handle->proves_writes()) {
    HYDRANT_TRY(auto layout, this->layout());
    HYDRANT_TRY_VOID(layout->prove(offset, bytes));
  }
  return fail(std::move(written).error().in(name_));
}

// Marks the granules that end inside `written` and answers the readers that have all of theirs.
void Filler::wrote(const FlightPtr& flight, ByteRange written) {
  Finished finished;
  {
    Lock lock(mutex_);
    if (!handle_) return;
    const uint64_t granule = layout_->granule();
    const Instant now = Clock::system().now();
    for (uint64_t index = written.begin / granule; index * granule < written.end; ++index) {
      if (layout_->granule_range(index).end > written.end) break;
      filled_at_[index] = now;
      held_.erase(index);
      // Also when another flight has claimed it: the bytes are there, and that flight will find nobody waiting.
      auto claim = claims_.find(index);
      if (claim == claims_.end()) continue;
      for (const WaiterPtr& waiter : claim->second.waiters) settle(lock, waiter, finished);
      claim->second.waiters.clear();
      if (claim->second.flight == flight) claims_.erase(claim);
    }
  }
  for (Done& call : finished) call({});
}

// Decides about a flight that has failed: true when it is queued again. Readers whose time is up go to `failed` either
// way.
bool Filler::again(Lock& lock, const FlightPtr& flight, const Error& error, std::vector<WaiterPtr>& failed) {
  const Instant now = Clock::system().now();
  Instant latest = Instant::min();  // when the most patient reader gives up
  const uint64_t granule = layout_->granule();
  for (uint64_t index = flight->wanted.begin / granule; index * granule < flight->wanted.end; ++index) {
    auto claim = claims_.find(index);
    if (claim == claims_.end() || claim->second.flight != flight) continue;
    std::erase_if(claim->second.waiters, [&](const WaiterPtr& waiter) {
      bool late = waiter->deadline.at() <= now;
      if (late) failed.push_back(waiter);
      if (!late && waiter->done) latest = std::max(latest, waiter->deadline.at());
      return late || !waiter->done;
    });
  }
  // Read-ahead that fails is not worth insisting; a reader that comes later starts it anew.
  if (latest == Instant::min()) return false;
  // A read ends with the first of its readers, and a run-ahead at its own deadline whoever has joined it; the origin
  // may well serve those who still have time.
  bool worth = error.retry || error.code == Code::kTooSlow;
  if (!worth || flight->attempts >= shop_.options.attempts || stop_.stop_requested()) return false;
  Instant at = Instant::min();
  if (error.code == Code::kCorrupt) {
    ++counters_->refetches;
  } else if (error.code != Code::kCancelled) {
    ++counters_->retries;
    Duration backoff = shop_.options.first_backoff * (1U << std::min(flight->attempts - 1, 10U));
    at = now + jittered(std::min(backoff, shop_.options.longest_backoff));
    if (at >= latest) return false;  // its cause says more than the deadline that would follow
  }
  flight->priority = Priority::kDemand;
  submit(lock, flight, at);
  return true;
}

}  // namespace hydrant::fetch
