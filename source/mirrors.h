// One object that several places have: read from the first of them that is well.
#pragma once

#include <memory>
#include <vector>

#include "base/clock.h"
#include "base/digest.h"
#include "base/guarded.h"
#include "source/source.h"

namespace hydrant::source {

// Whether a place has served lately. After a failure it is passed over for a second, and longer with each failure that
// follows, up to a minute; then one reader tries it again, and a success brings everybody back. Thread-safe.
class Health {
 public:
  explicit Health(const Clock& clock = Clock::system()) : clock_(clock) {}

  // True: nothing is known against asking it.
  bool due();
  // As due(); but of a place that failed, one caller a pause gets true: who is about to ask it.
  bool worth_asking();
  void succeeded();
  void failed();

 private:
  const Clock& clock_;
  struct State {
    unsigned failures = 0;  // in a row
    Instant again_at{};
  };
  Guarded<State> state_;
};

struct Mirror {
  std::shared_ptr<Blob> blob;
  std::shared_ptr<Health> health;  // of the place: shared by all its blobs
};

// Thread-safe. A read goes on at the byte it has reached when it moves to the next place, so its sink sees one object:
// every place must be bound to the same content, `digest`. Who gives wrong bytes is passed over from the next read on:
// when the sink finds them corrupt, or when the whole object was read and is not what its digest says.
class MirroredBlob final : public Blob {
 public:
  // In the order of preference, at least one.
  MirroredBlob(std::vector<Mirror> mirrors, const Digest& digest)
      : mirrors_(std::move(mirrors)), digest_(digest), has_it_(mirrors_.size()) {}

  uint64_t size() const override { return mirrors_.back().blob->size(); }
  // Each place but the last may use half of the time that is left. The error is that of the last one asked.
  Result<> read(const ReadRequest& request, const Sink& sink) override;
  BlobVersion version() const override { return mirrors_.back().blob->version(); }
  std::string describe() const override { return mirrors_.back().blob->describe(); }

 private:
  void learn(size_t index, const Error& error);

  const std::vector<Mirror> mirrors_;
  const Digest digest_;
  std::vector<Health> has_it_;  // by mirror: a place that is well may lack this object, or keep it from us
};

// Of `count` places those that are due, then the others, for want of better.
template <class Due>
std::vector<size_t> places_in_order(size_t count, Due due) {
  std::vector<size_t> first, rest;
  for (size_t i = 0; i < count; ++i) (due(i) ? first : rest).push_back(i);
  first.insert(first.end(), rest.begin(), rest.end());
  return first;
}

}  // namespace hydrant::source
