// One request to the origin, decoded while it arrives.
#pragma once

#include <functional>

#include "base/clock.h"
#include "base/error.h"
#include "image/layout.h"
#include "source/source.h"

namespace hydrant::fetch {

// Where a fill is cut into pieces that are decoded by themselves. Neighbouring pieces decode the span that both touch
// twice, but nothing is fetched twice.
class FillStream {
 public:
  // `fill` is what layout.plan() made of the wanted range; `piece` is a power of two.
  FillStream(const image::Layout& layout, const image::Fill& fill, uint64_t piece);

  // Bytes that run() holds at a time.
  uint64_t memory() const;

  // Reads fill.stored in one go and hands out the granules of fill.device in order, each proven. `arrived` hears of
  // every stored byte. Errors are those of the blob, the layout and the sink; bytes that do not match are kCorrupt.
  Result<> run(source::Blob& blob, Deadline deadline, std::stop_token stop,
               const std::function<void(uint64_t)>& arrived, const image::DeviceSink& sink) const;

 private:
  const image::Layout& layout_;
  const image::Fill fill_;
  std::vector<image::Fill> pieces_;  // device ranges disjoint and ascending, together fill_.device
};

}  // namespace hydrant::fetch
