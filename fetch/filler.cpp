#include "fetch/filler.h"

#include <random>
#include <utility>

#include "base/log.h"
#include "fetch/fill_stream.h"
#include "fetch/write_all.h"

namespace hydrant::fetch {

// One READ. Ends when `missing` granules have come, or at the first failure of one of them.
struct Filler::Waiter {
  ByteRange range;
  Deadline deadline;
  Done done;           // empty once called
  size_t missing = 0;  // claims that list this waiter
};

// One fetch, queued or running. `wanted` grows while it is queued and shrinks to what is left when it is tried again.
struct Filler::Flight {
  ByteRange wanted;  // whole granules
  Priority priority = Priority::kDemand;
  Deadline ahead_deadline{Instant::max()};  // of a flight that nobody waits for
  bool running = false;
  unsigned attempts = 0;
  unsigned corrupt = 0;
  uint64_t marker = UINT64_MAX;  // index of the granule that is held back
  Buffer ready;                  // of a flight that only writes what was held
  FillQueue::Ticket ticket;
};

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

std::shared_ptr<Filler> Filler::create(const FillShop& shop, std::string name, std::shared_ptr<ObjectHandle> handle,
                                       std::shared_ptr<Origin> origin, std::shared_ptr<Counters> counters) {
  return std::shared_ptr<Filler>(
      new Filler(shop, std::move(name), std::move(handle), std::move(origin), std::move(counters)));
}

Filler::Filler(const FillShop& shop, std::string name, std::shared_ptr<ObjectHandle> handle,
               std::shared_ptr<Origin> origin, std::shared_ptr<Counters> counters)
    : shop_(shop),
      name_(std::move(name)),
      origin_(std::move(origin)),
      place_(origin_->place()),
      counters_(std::move(counters)),
      handle_(std::move(handle)) {}

Filler::~Filler() { close(); }

void Filler::read(ByteRange range, Done done) {
  auto waiter = std::make_shared<Waiter>(
      Waiter{range, Deadline::after(shop_.options.reader_deadline), std::move(done), /*missing=*/0});
  Finished finished;
  bool load = false;
  {
    Lock lock(mutex_);
    if (!handle_) {
      lock.unlock();
      waiter->done(fail(Code::kCancelled, name_ + ": the object is closed"));
      return;
    }
    if (layout_) {
      admit(lock, waiter, finished);
    } else {
      early_.push_back(waiter);
      load = !std::exchange(loading_, true);
    }
  }
  if (load) {
    shop_.queue.submit(Priority::kDemand, [self = shared_from_this()](std::stop_token) { self->load_layout(); });
  }
  for (Done& call : finished) call({});
}

void Filler::load_layout() {
  auto layout = origin_->layout();
  std::vector<WaiterPtr> early;
  Finished finished;
  {
    Lock lock(mutex_);
    loading_ = false;
    early.swap(early_);
    if (layout && handle_) {
      layout_ = *std::move(layout);
      for (const WaiterPtr& waiter : early)
        if (waiter->done) admit(lock, waiter, finished);
      early.clear();
    }
  }
  for (Done& call : finished) call({});
  // The next read tries again.
  for (const WaiterPtr& waiter : early)
    finish(waiter, layout ? Error{.code = Code::kCancelled, .what = name_ + ": closed"} : layout.error());
}

ByteRange Filler::granule_range(uint64_t index) const {
  uint64_t granule = layout_->granule();
  return {index * granule, std::min((index + 1) * granule, layout_->device_size())};
}

// Joins the flights that are under way for the waiter's granules and starts those that are missing.
void Filler::admit(Lock& lock, const WaiterPtr& waiter, Finished& finished) {
  ByteRange range = intersect(waiter->range, {0, layout_->device_size()});
  if (range.empty()) {
    finished.push_back(std::exchange(waiter->done, {}));
    return;
  }
  const uint64_t granule = layout_->granule();
  const uint64_t first = range.begin / granule;
  const uint64_t last = (range.end - 1) / granule;
  const Instant now = Clock::system().now();

  ByteRange run;  // missing granules, as bytes, not yet claimed
  auto claim = [&] {
    if (!run.empty()) claim_run(lock, run);
    run = {};
  };
  for (uint64_t index = first; index <= last; ++index) {
    if (auto found = claims_.find(index); found != claims_.end()) {
      claim();
      if (FlightPtr flight = found->second.flight; flight->priority == Priority::kAhead && !flight->running) {
        flight->priority = Priority::kDemand;
        shop_.queue.promote(flight->ticket);
      }
      continue;
    }
    if (auto filled = filled_at_.find(index); filled != filled_at_.end()) {
      if (now - filled->second < shop_.options.fresh) {
        claim();
        continue;
      }
      filled_at_.erase(filled);
    }
    if (held_.contains(index)) {
      claim();
      release_held(lock, index, Priority::kDemand);
      continue;
    }
    ByteRange bytes = granule_range(index);
    run = run.empty() ? bytes : ByteRange{run.begin, bytes.end};
  }
  claim();
  for (uint64_t index = first; index <= last; ++index)
    if (auto found = claims_.find(index); found != claims_.end()) {
      found->second.waiters.push_back(waiter);
      ++waiter->missing;
    }
  if (waiter->missing == 0) finished.push_back(std::exchange(waiter->done, {}));

  ByteRange covered = {granule_range(first).begin, granule_range(last).end};
  run_ahead(lock, streams_.miss(range, covered, shop_.options.shortest_run, ahead_limit(lock), layout_->device_size()));
}

// What a run-ahead may be: a reader that jumps into the middle of one waits for the part before.
uint64_t Filler::ahead_limit(Lock&) const {
  constexpr uint64_t kUnknownSpeed = 4 << 20, kLeast = 512 << 10;
  double seconds = std::chrono::duration<double>(shop_.options.ahead_time).count();
  auto reach = speed_ == 0 ? kUnknownSpeed : static_cast<uint64_t>(static_cast<double>(speed_) * seconds);
  return round_up(std::clamp(reach, std::min(kLeast, shop_.options.longest_ahead), shop_.options.longest_ahead),
                  layout_->granule());
}

void Filler::run_ahead(Lock& lock, ByteRange range) {
  if (range.empty()) return;
  const uint64_t granule = layout_->granule();
  FlightPtr first;
  ByteRange run;
  auto claim = [&] {
    if (run.empty()) return;
    FlightPtr flight = add_flight(lock, std::exchange(run, {}), Priority::kAhead);
    if (!first) first = flight;
  };
  for (uint64_t index = range.begin / granule; index <= (range.end - 1) / granule; ++index) {
    bool known = claims_.contains(index) || filled_at_.contains(index) || held_.contains(index);
    ByteRange bytes = granule_range(index);
    if (known) claim();
    if (!known) run = run.empty() ? bytes : ByteRange{run.begin, bytes.end};
  }
  claim();
  // One granule alone would be held for nothing: there is nothing behind it that it could announce.
  if (first && first->wanted.size() > granule) first->marker = first->wanted.begin / granule;
}

void Filler::release_held(Lock& lock, uint64_t index, Priority priority) {
  auto held = held_.extract(index);
  add_flight(lock, granule_range(index), priority, std::move(held.mapped().bytes));
}

// Adds `piece` to a queued demand flight that ends or begins where it begins or ends.
bool Filler::extend_queued(Lock&, ByteRange piece) {
  const uint64_t granule = layout_->granule();
  auto join = [&](uint64_t neighbour) {
    auto found = claims_.find(neighbour);
    if (found == claims_.end()) return false;
    FlightPtr flight = found->second.flight;
    ByteRange joined = {std::min(flight->wanted.begin, piece.begin), std::max(flight->wanted.end, piece.end)};
    // What is ready is written where the flight begins, and fetches nothing.
    if (flight->running || !flight->ready.empty() || flight->priority != Priority::kDemand || flight->attempts > 0 ||
        joined.size() != flight->wanted.size() + piece.size() || joined.size() > shop_.options.fill_unit)
      return false;
    flight->wanted = joined;
    for (uint64_t index = piece.begin / granule; index * granule < piece.end; ++index) claims_[index] = {flight, {}};
    return true;
  };
  return (piece.begin > 0 && join(piece.begin / granule - 1)) || join((piece.end - 1) / granule + 1);
}

// `run` is whole granules that nobody has claimed. A long one becomes several flights, so that workers share it.
void Filler::claim_run(Lock& lock, ByteRange run) {
  const uint64_t granule = layout_->granule();
  const uint64_t unit = std::max(granule, shop_.options.fill_unit);
  while (!run.empty()) {
    ByteRange piece = {run.begin, std::min(run.end, round_down(run.begin, unit) + unit)};
    run.begin = piece.end;
    if (!extend_queued(lock, piece)) add_flight(lock, piece, Priority::kDemand);
  }
}

Filler::FlightPtr Filler::add_flight(Lock& lock, ByteRange wanted, Priority priority, Buffer ready) {
  auto flight = std::make_shared<Flight>();
  flight->ready = std::move(ready);
  flight->wanted = wanted;
  flight->priority = priority;
  flight->ahead_deadline = Deadline::after(shop_.options.reader_deadline);
  const uint64_t granule = layout_->granule();
  for (uint64_t index = wanted.begin / granule; index * granule < wanted.end; ++index) claims_[index] = {flight, {}};
  submit(lock, flight, Instant::min());
  return flight;
}

void Filler::submit(Lock&, const FlightPtr& flight, Instant not_before) {
  flight->running = false;
  flight->ticket = shop_.queue.submit(
      flight->priority, [self = shared_from_this(), flight](std::stop_token stop) { self->run(flight, stop); },
      not_before, flight->ready.empty() ? place_ : std::string());
}

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
  {
    Lock lock(mutex_);
    if (!handle_ || queue_stop.stop_requested()) return;  // close() has answered, or will
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
      fill = layout->plan(flight->wanted);
      // The neighbours that come along are ours too, unless somebody fetches them or they are here already.
      for (uint64_t index = fill.device.begin / granule; index * granule < fill.device.end; ++index)
        if (!held_.contains(index)) claims_.try_emplace(index, Claim{flight, {}});
      flight->wanted = fill.device;
    }
    deadline = flight_deadline(lock, flight);
  }

  auto result = ready.empty() ? attempt(flight, *layout, fill, deadline) : deliver(flight, ready, flight->wanted.begin);

  std::vector<WaiterPtr> failed;
  {
    Lock lock(mutex_);
    if (!handle_) return;
    if (result && !ready.empty()) {
      // Fetched, and counted, when it was held.
    } else if (result) {
      ++counters_->fills;
      if (flight->priority == Priority::kAhead) ++counters_->ahead_fills;
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
                         Deadline deadline) {
  if (deadline.passed()) return fail({.code = Code::kTooSlow, .what = "the reader's deadline passed", .retry = true});
  std::stop_token stop = stop_.get_token();
  HYDRANT_TRY(auto blob, origin_->blob(deadline));
  const uint64_t batch_bytes = std::max(std::min(kBatch, fill.device.size()), layout.granule());
  const uint64_t decoding = std::min(kDecoding, 2 * fill.device.size());
  HYDRANT_TRY(auto share,
              shop_.memory.take(batch_bytes + layout.granule() + decoding, flight->priority, deadline, stop));
  const Instant began = Clock::system().now();

  GranuleBatch batch(batch_bytes);
  Instant flushed_at{};  // long ago
  auto flush = [&]() -> Result<> {
    HYDRANT_TRY_VOID(deliver(flight, batch.bytes(), batch.offset()));
    batch.clear();
    flushed_at = Clock::system().now();
    return {};
  };
  auto ran = stream_fill(
      layout, fill, *blob, deadline, stop,
      [&](uint64_t bytes) -> Result<> {
        counters_->fetched_bytes += bytes;
        return bytes == 0 && awaited(batch) ? flush() : Result<>{};
      },
      [&](uint64_t offset, Bytes bytes) -> Result<> {
        if (hold(flight, bytes, offset)) return flush();
        if (!batch.empty() && !batch.fits(bytes.size())) HYDRANT_TRY_VOID(flush());
        if (batch.empty()) {
          HYDRANT_TRY(auto handle, open_handle());
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
    if (error.code == Code::kCorrupt && !error.retry) {
      ++flight->corrupt;
      error.retry = flight->corrupt == 1;
      log::warn("fill.corrupt", {{"object", name_}, {"origin", blob->describe()}, {"offset", fill.device.begin}});
    }
    return fail(std::move(error).in(blob->describe()));
  }
  double seconds = std::chrono::duration<double>(Clock::system().now() - began).count();
  auto speed = static_cast<uint64_t>(static_cast<double>(fill.device.size()) / std::max(seconds, 1e-6));
  log::debug("fill.done", {{"object", name_},
                           {"ahead", flight->priority == Priority::kAhead ? 1 : 0},
                           {"offset", fill.device.begin},
                           {"length", fill.device.size()},
                           {"stored", fill.stored.size()},
                           {"ms", static_cast<int64_t>(seconds * 1000)}});
  Lock lock(mutex_);
  speed_ = speed_ == 0 ? speed : (3 * speed_ + speed) / 4;
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
  if (!written) return fail(std::move(written).error().in(name_));
  return {};
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
      if (granule_range(index).end > written.end) break;
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

void Filler::settle(Lock&, const WaiterPtr& waiter, Finished& finished) {
  if (--waiter->missing == 0 && waiter->done) finished.push_back(std::exchange(waiter->done, {}));
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
  } else {
    ++counters_->retries;
    Duration backoff = shop_.options.first_backoff * (1U << std::min(flight->attempts - 1, 10U));
    at = now + jittered(std::min(backoff, shop_.options.longest_backoff));
    if (at >= latest) return false;  // its cause says more than the deadline that would follow
  }
  flight->priority = Priority::kDemand;
  submit(lock, flight, at);
  return true;
}

// Forgets what the flight has claimed; whoever waits for it goes to `failed`.
void Filler::fail_claims(Lock&, const FlightPtr& flight, std::vector<WaiterPtr>& failed) {
  std::erase_if(claims_, [&](const auto& entry) {
    const Claim& claim = entry.second;
    if (claim.flight != flight) return false;
    failed.insert(failed.end(), claim.waiters.begin(), claim.waiters.end());
    return true;
  });
}

// Answers a reader with an error, unless it has its answer.
void Filler::finish(const WaiterPtr& waiter, const Error& error) {
  Done done;
  {
    Lock lock(mutex_);
    done = std::exchange(waiter->done, {});
  }
  if (!done) return;
  if (error.code != Code::kCancelled) counters_->count_failure(error.code);
  done(fail(error));
}

void Filler::expire() {
  std::vector<WaiterPtr> late;
  {
    Lock lock(mutex_);
    const Instant now = Clock::system().now();
    auto look = [&](const std::vector<WaiterPtr>& waiters) {
      for (const WaiterPtr& waiter : waiters)
        if (waiter->done && waiter->deadline.at() <= now) late.push_back(waiter);
    };
    look(early_);
    for (const auto& [index, claim] : claims_) look(claim.waiters);
    std::vector<uint64_t> unasked;
    for (const auto& [index, held] : held_)
      if (now - held.since >= shop_.options.held_time) unasked.push_back(index);
    for (uint64_t index : unasked) release_held(lock, index, Priority::kAhead);
  }
  for (const WaiterPtr& waiter : late)
    finish(waiter, {.code = Code::kTooSlow, .what = name_ + ": not supplied within the reader's deadline"});
}

void Filler::close() {
  std::shared_ptr<ObjectHandle> handle;
  std::vector<WaiterPtr> waiters;
  {
    Lock lock(mutex_);
    handle.swap(handle_);
    stop_.request_stop();
    waiters.swap(early_);
    for (auto& [index, claim] : claims_) waiters.insert(waiters.end(), claim.waiters.begin(), claim.waiters.end());
    claims_.clear();
    held_.clear();
  }
  for (const WaiterPtr& waiter : waiters) finish(waiter, {.code = Code::kCancelled, .what = name_ + ": closed"});
}

}  // namespace hydrant::fetch
