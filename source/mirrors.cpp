#include "source/mirrors.h"

#include <algorithm>
#include <optional>

namespace hydrant::source {

namespace {

constexpr Duration kFirstPause = std::chrono::seconds(1);
constexpr Duration kLongestPause = std::chrono::minutes(1);

Duration pause_after(unsigned failures) {
  return std::min<Duration>(kFirstPause * (1u << std::min(failures - 1, 10u)), kLongestPause);
}

}  // namespace

bool Health::due() {
  auto state = state_.lock();
  return state->failures == 0 || clock_.now() >= state->again_at;
}

bool Health::worth_asking() {
  auto state = state_.lock();
  if (state->failures == 0) return true;
  const auto now = clock_.now();
  if (now < state->again_at) return false;
  state->again_at = now + pause_after(state->failures);
  return true;
}

void Health::succeeded() { state_.lock()->failures = 0; }

void Health::failed() {
  auto state = state_.lock();
  ++state->failures;
  state->again_at = clock_.now() + pause_after(state->failures);
}

void MirroredBlob::learn(size_t index, const Error& error) {
  switch (error.code) {
    case Code::kNotFound:
    case Code::kDenied:
    case Code::kUnauthorized: return has_it_[index].failed();
    default: return mirrors_[index].health->failed();
  }
}

Result<> MirroredBlob::read(const ReadRequest& request, const Sink& sink) {
  uint64_t at = request.range.begin;
  std::optional<Error> refused;  // by the sink
  const bool whole = request.range == ByteRange{0, size()};
  Sha256 hash;
  auto counting = [&](Bytes piece) -> Result<> {
    auto taken = sink(piece);
    if (taken) {
      at += piece.size();
      if (whole) hash.update(piece);
    } else {
      refused = taken.error();
    }
    return taken;
  };
  const auto order =
      places_in_order(mirrors_.size(), [&](size_t i) { return has_it_[i].due() && mirrors_[i].health->due(); });
  Result<> done;
  for (size_t i = 0; i < order.size(); ++i) {
    const Mirror& mirror = mirrors_[order[i]];
    const bool last = i + 1 == order.size();
    if (const bool well = mirror.health->worth_asking(), here = has_it_[order[i]].worth_asking();
        !(well && here) && !last)
      continue;
    const auto patience = last ? request.deadline : Deadline::after(request.deadline.left() / 2);
    done = mirror.blob->read({.range = {at, request.range.end}, .deadline = patience, .stop = request.stop}, counting);
    if (done && whole && hash.finish() != digest_) {
      done = fail(Error{.code = Code::kCorrupt,
                        .what = mirror.blob->describe() + " gives other bytes than its digest says",
                        .sys = 0,
                        .retry = true});
      learn(order[i], done.error());
      return done;  // what the sink has taken cannot be taken back
    }
    if (done) {
      has_it_[order[i]].succeeded();
      mirror.health->succeeded();
      return done;
    }
    if (refused ? refused->code == Code::kCorrupt : done.error().code != Code::kCancelled)
      learn(order[i], done.error());
    if (refused || done.error().code == Code::kCancelled || request.deadline.passed()) return done;
  }
  return done;
}

}  // namespace hydrant::source
