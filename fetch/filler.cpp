// Who waits for what: readers join the flights for their granules, streams and prefetches start some of their own.
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "base/log.h"
#include "fetch/filler_flight.h"

namespace hydrant::fetch {

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
  auto layout = this->layout();
  std::vector<WaiterPtr> early;
  Finished finished;
  {
    Lock lock(mutex_);
    loading_ = false;
    early.swap(early_);
    if (layout && handle_) {
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

Result<std::shared_ptr<const image::Layout>> Filler::layout() {
  {
    Lock lock(mutex_);
    if (layout_) return layout_;
  }
  HYDRANT_TRY(auto loaded, origin_->layout());
  Lock lock(mutex_);
  if (!layout_) layout_ = std::move(loaded);
  return layout_;
}

void Filler::prefetch(std::vector<ByteRange> wanted) {
  submit_prefetch(std::move(wanted), Deadline::after(shop_.options.attach_deadline), Instant::min());
}

void Filler::submit_prefetch(std::vector<ByteRange> wanted, Deadline deadline, Instant not_before) {
  shop_.queue.submit(
      Priority::kPrefetch,
      [weak = weak_from_this(), wanted = std::move(wanted), deadline](std::stop_token) {
        if (auto self = weak.lock()) self->plan_prefetch(wanted, deadline);
      },
      not_before);
}

// The parts of `range` that nobody has written. Its error has sys ENOBUFS while the cache has not attached its file.
Result<std::vector<ByteRange>> Filler::holes(ObjectHandle& handle, ByteRange range) {
  std::vector<ByteRange> holes;
  while (!range.empty()) {
    const int64_t data = handle.lseek(static_cast<int64_t>(range.begin), SEEK_DATA);
    if (data < 0 && data != -ENXIO) return fail_sys(static_cast<int>(-data), name_ + ": look for what is missing");
    const uint64_t end = data < 0 ? range.end : std::min(range.end, static_cast<uint64_t>(data));
    if (range.begin < end) holes.push_back({range.begin, end});
    if (end == range.end) break;
    const int64_t hole = handle.lseek(data, SEEK_HOLE);
    if (hole <= data) break;
    range.begin = std::min(range.end, static_cast<uint64_t>(hole));
  }
  return holes;
}

// Ranges whose stored bytes follow each other, or overlap, become one: workers that fetched them at the same time would
// fetch the spans between them twice. Each stands where the first of its parts stood.
std::vector<ByteRange> Filler::joined(const image::Layout& layout, const std::vector<ByteRange>& ranges) {
  struct Part {
    size_t rank;
    ByteRange wanted, stored;
  };
  std::vector<Part> parts;
  for (ByteRange range : ranges) parts.push_back({parts.size(), range, layout.plan(range).stored});
  std::sort(parts.begin(), parts.end(), [](const Part& a, const Part& b) { return a.wanted.begin < b.wanted.begin; });
  std::vector<Part> runs;
  for (const Part& part : parts) {
    if (runs.empty() || part.stored.begin > runs.back().stored.end) {
      runs.push_back(part);
      continue;
    }
    Part& run = runs.back();
    run.rank = std::min(run.rank, part.rank);
    run.wanted.end = std::max(run.wanted.end, part.wanted.end);
    run.stored.end = std::max(run.stored.end, part.stored.end);
  }
  std::sort(runs.begin(), runs.end(), [](const Part& a, const Part& b) { return a.rank < b.rank; });
  std::vector<ByteRange> out;
  for (const Part& run : runs) out.push_back(run.wanted);
  return out;
}

void Filler::plan_prefetch(const std::vector<ByteRange>& wanted, Deadline deadline) {
  auto handle = open_handle();
  if (!handle) return;
  auto layout = this->layout();
  if (!layout) return log::warn("prefetch.layout", {{"object", name_}, {"reason", layout.error().what}});
  std::vector<ByteRange> missing;
  for (ByteRange range : wanted) {
    auto found = holes(**handle, intersect(range, {0, (*layout)->device_size()}));
    if (!found && found.error().sys == ENOBUFS && !deadline.passed())
      return submit_prefetch(wanted, deadline, Clock::system().now() + shop_.options.first_backoff / 10);
    if (!found) return log::warn("prefetch.lookup", {{"object", name_}, {"reason", found.error().what}});
    missing.insert(missing.end(), found->begin(), found->end());
  }
  missing = joined(**layout, missing);
  Lock lock(mutex_);
  if (!handle_) return;
  for (ByteRange hole : missing) claim_prefetch(lock, hole, Priority::kPrefetch);
}

void Filler::complete(UniqueFunction<void()> done) {
  {
    Lock lock(mutex_);
    if (!handle_ || completed_) return;
    completed_ = std::move(done);
  }
  go_on(0, /*found=*/false, Instant::min());
}

void Filler::go_on(uint64_t from, bool found, Instant not_before) {
  shop_.queue.submit(
      Priority::kBackground,
      [weak = weak_from_this(), from, found](std::stop_token) {
        if (auto self = weak.lock()) self->step(from, found);
      },
      not_before, place_);
}

// Claims what is missing of the next part of the device; the step after it stands behind those fills in the queue. A
// whole pass that has `found` nothing missing is the last one.
void Filler::step(uint64_t from, bool found) {
  auto handle = open_handle();
  if (!handle) return;
  const Instant now = Clock::system().now();
  auto layout = this->layout();
  if (!layout) return go_on(from, found, now + shop_.options.background_pause);
  const ByteRange window = {from, std::min((*layout)->device_size(), from + shop_.options.background_unit)};
  auto missing = holes(**handle, window);
  if (!missing) return go_on(from, found, now + shop_.options.background_pass);
  found |= !missing->empty();
  const bool last = window.end == (*layout)->device_size();
  bool failed = false;
  UniqueFunction<void()> done;
  {
    Lock lock(mutex_);
    if (!handle_) return;
    for (ByteRange hole : *missing) claim_prefetch(lock, hole, Priority::kBackground);
    failed = std::exchange(background_failed_, false);
    if (last && !found) done = std::exchange(completed_, {});
  }
  if (last && !found) return done();
  const Duration pause = failed ? shop_.options.background_pause : last ? shop_.options.background_pass : Duration(0);
  go_on(last ? 0 : window.end, last ? false : found, pause > Duration(0) ? now + pause : Instant::min());
}

// Claims with a hole whatever its fill completes, so that the next hole in the same span is not fetched again.
void Filler::claim_prefetch(Lock& lock, ByteRange hole, Priority priority) {
  const uint64_t granule = layout_->granule();
  const uint64_t unit = std::max(granule, shop_.options.prefetch_unit);
  while (!hole.empty()) {
    const uint64_t first = hole.begin / granule;
    if (known(lock, first)) {
      hole.begin = std::min(hole.end, (first + 1) * granule);
      continue;
    }
    const ByteRange wanted = {hole.begin, std::min(hole.end, round_down(hole.begin, unit) + unit)};
    const ByteRange fill{layout_->plan(wanted).device.begin, layout_->piece_end(wanted)};
    uint64_t begin = first, end = first + 1;
    while (begin > fill.begin / granule && !known(lock, begin - 1)) --begin;
    while (end * granule < fill.end && !known(lock, end)) ++end;
    const FlightPtr flight = add_flight(lock, {begin * granule, layout_->granule_range(end - 1).end}, priority);
    flight->piece = true;
    hole.begin = std::min(hole.end, end * granule);
  }
}

// Whether the granule is on its way, or was here when we last knew.
bool Filler::known(Lock&, uint64_t index) const {
  return claims_.contains(index) || filled_at_.contains(index) || held_.contains(index);
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
  if (!waiter->looked)
    for (uint64_t index = first; index <= last; ++index)
      if (auto filled = filled_at_.find(index);
          filled != filled_at_.end() && now - filled->second < shop_.options.fresh)
        return look_first(lock, waiter);

  ByteRange run;       // missing granules, as bytes, not yet claimed
  uint64_t along = 0;  // end of the last claim
  auto claim = [&] {
    if (!run.empty()) along = claim_run(lock, run);
    run = {};
  };
  for (uint64_t index = first; index <= last; ++index) {
    if (auto found = claims_.find(index); found != claims_.end()) {
      claim();
      if (FlightPtr flight = found->second.flight; flight->priority != Priority::kDemand && !flight->running) {
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
    ByteRange bytes = layout_->granule_range(index);
    run = run.empty() ? bytes : ByteRange{run.begin, bytes.end};
  }
  claim();
  for (uint64_t index = first; index <= last; ++index)
    if (auto found = claims_.find(index); found != claims_.end()) {
      found->second.waiters.push_back(waiter);
      ++waiter->missing;
    }
  if (waiter->missing == 0) finished.push_back(std::exchange(waiter->done, {}));
  joined_.notify_all();

  ByteRange covered = {layout_->granule_range(first).begin, layout_->granule_range(last).end};
  const ByteRange ahead =
      streams_.miss(range, covered, along, shop_.options.shortest_run, ahead_limit(lock), layout_->device_size());
  if (!ahead.empty()) streams_.ends_at(ahead.end, run_ahead(lock, ahead));
  if (ahead.empty())
    for (ByteRange place : strides_.miss(range, layout_->device_size())) claim_ahead(lock, place, /*piece=*/false);
}

// The cache asks for what was written a moment ago: its question crossed the write, or it has lost the bytes since, to
// its culler or its scrub. It knows which; workers may ask it.
void Filler::look_first(Lock&, const WaiterPtr& waiter) {
  waiter->looked = true;
  shop_.queue.submit(Priority::kDemand, [self = shared_from_this(), waiter](std::stop_token) { self->look(waiter); });
}

void Filler::look(const WaiterPtr& waiter) {
  const Instant began = Clock::system().now();
  auto handle = open_handle();
  if (!handle) return finish(waiter, {.code = Code::kCancelled, .what = name_ + ": closed"});
  ByteRange range;
  {
    Lock lock(mutex_);
    range = layout_->whole_granules(intersect(waiter->range, {0, layout_->device_size()}));
  }
  auto missing = holes(**handle, range);
  Finished finished;
  bool closed = false;
  {
    Lock lock(mutex_);
    closed = !handle_;
    const uint64_t granule = layout_->granule();
    if (missing)
      for (ByteRange hole : *missing)
        for (uint64_t index = hole.begin / granule; index * granule < hole.end; ++index)
          if (auto filled = filled_at_.find(index); filled != filled_at_.end() && filled->second < began)
            filled_at_.erase(filled);
    if (!closed && waiter->done) admit(lock, waiter, finished);
  }
  if (closed) finish(waiter, {.code = Code::kCancelled, .what = name_ + ": closed"});
  for (Done& call : finished) call({});
}

// What a run-ahead may be: a reader that jumps into the middle of one waits for the part before.
uint64_t Filler::ahead_limit(Lock&) const {
  constexpr uint64_t kUnknownSpeed = 4 << 20, kLeast = 512 << 10;
  // A distant origin's connections take many round trips to come up to speed: short requests never do.
  const Duration time = std::max(shop_.options.ahead_time, shop_.options.ahead_latencies * latency_);
  double seconds = std::chrono::duration<double>(time).count();
  auto reach = speed_ == 0 ? kUnknownSpeed : static_cast<uint64_t>(static_cast<double>(speed_) * seconds);
  return round_up(std::clamp(reach, std::min(kLeast, shop_.options.longest_ahead), shop_.options.longest_ahead),
                  layout_->granule());
}

// Goes on where the piece before it ends, and ends as one itself; yields that end.
uint64_t Filler::run_ahead(Lock& lock, ByteRange range) {
  const uint64_t begin = end_as_piece(lock, range.begin);
  range = {begin, std::min(range.end + (begin - range.begin), layout_->device_size())};
  if (range.empty()) return range.end;
  range.end = layout_->piece_end(range);
  claim_ahead(lock, range, /*piece=*/true);
  return range.end;
}

void Filler::claim_ahead(Lock& lock, ByteRange range, bool piece) {
  if (range.empty()) return;
  const uint64_t granule = layout_->granule();
  FlightPtr first;
  ByteRange run;
  auto claim = [&] {
    if (run.empty()) return;
    FlightPtr flight = add_flight(lock, std::exchange(run, {}), Priority::kAhead);
    flight->piece = piece;
    if (!first) first = flight;
  };
  for (uint64_t index = range.begin / granule; index <= (range.end - 1) / granule; ++index) {
    if (known(lock, index)) {
      claim();
      continue;
    }
    ByteRange bytes = layout_->granule_range(index);
    run = run.empty() ? bytes : ByteRange{run.begin, bytes.end};
  }
  claim();
  // One granule alone would be held for nothing: there is nothing behind it that it could announce.
  if (first && first->wanted.size() > granule) first->marker = first->wanted.begin / granule;
}

// The flight that ends at `border`, if it is still queued, becomes a piece of the run that goes on there; yields its
// end.
uint64_t Filler::end_as_piece(Lock& lock, uint64_t border) {
  const uint64_t granule = layout_->granule();
  auto before = border == 0 ? claims_.end() : claims_.find((border - 1) / granule);
  if (before == claims_.end()) return border;
  const FlightPtr flight = before->second.flight;
  if (flight->running || flight->attempts > 0 || !flight->ready.empty() || flight->wanted.end != border) return border;
  const uint64_t end = reach(lock, border, layout_->piece_end(flight->wanted) - border);
  for (uint64_t index = border / granule; index * granule < end; ++index) claims_[index] = {flight, {}};
  flight->wanted.end = end;
  flight->piece = true;
  return end;
}

void Filler::release_held(Lock& lock, uint64_t index, Priority priority) {
  auto held = held_.extract(index);
  add_flight(lock, layout_->granule_range(index), priority, std::move(held.mapped().bytes));
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

// `run` is whole granules that nobody has claimed. A long one becomes several flights, so that workers share it. Yields
// the end of what is fetched.
uint64_t Filler::claim_run(Lock& lock, ByteRange run) {
  const uint64_t granule = layout_->granule();
  const uint64_t unit = std::max(granule, shop_.options.fill_unit);
  const uint64_t end = near_others(lock, run) ? reach(lock, run.end, locality().along) : run.end;
  while (!run.empty()) {
    ByteRange piece = {run.begin, std::min(run.end, round_down(run.begin, unit) + unit)};
    run.begin = piece.end;
    if (run.empty()) piece.end = end;
    if (!extend_queued(lock, piece)) add_flight(lock, piece, Priority::kDemand);
  }
  return end;
}

const FillOptions::Locality& Filler::locality() const {
  return origin_->many_files() ? shop_.options.of_many_files : shop_.options.of_one_file;
}

// Whether somebody wanted something close before or behind: programs and libraries that are read here and there are
// read in more places soon, and a request costs more than the bytes that it may bring along.
bool Filler::near_others(Lock& lock, ByteRange run) const {
  const uint64_t granule = layout_->granule();
  const uint64_t around = locality().near / granule, first = run.begin / granule, last = (run.end - 1) / granule;
  for (uint64_t distance = 1; distance <= around; ++distance)
    if ((distance <= first && known(lock, first - distance)) || known(lock, last + distance)) return true;
  return false;
}

// Where the granules end that begin at `from`, are unknown, and take at most `most` bytes.
uint64_t Filler::reach(Lock& lock, uint64_t from, uint64_t most) const {
  const uint64_t size = layout_->device_size(), granule = layout_->granule();
  uint64_t end = std::min(from, size);
  while (end < size && end - from + granule <= most && !known(lock, end / granule)) end = std::min(end + granule, size);
  return end;
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
      flight->priority,
      [weak = weak_from_this(), flight](std::stop_token stop) {
        if (auto self = weak.lock()) self->run(flight, stop);
      },
      not_before, flight->ready.empty() ? place_ : std::string());
}

void Filler::settle(Lock&, const WaiterPtr& waiter, Finished& finished) {
  if (--waiter->missing == 0 && waiter->done) finished.push_back(std::exchange(waiter->done, {}));
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
    if (filled_at_.size() > shop_.options.most_filled)
      std::erase_if(filled_at_, [&](const auto& entry) { return now - entry.second >= shop_.options.fresh; });
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
