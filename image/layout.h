// A layout: how ranges of a device map to ranges of a remote blob, with the digests that prove them.
#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>
#include <memory>

#include "base/byte_range.h"
#include "base/bytes.h"
#include "base/check.h"
#include "base/error.h"

namespace hydrant::image {

struct Fringe;

// One unit of fetching: get `stored` from the blob, decode it, prove it, and `device` may be written.
struct Fill {
  ByteRange device;  // aligned to the layout's granule (the last one ends with the device)
  ByteRange stored;  // of the remote blob, as it travels
  // What earlier fills have left of the first and the last granule, so that `stored` need not hold it; null: it does.
  std::shared_ptr<const Fringe> head = nullptr, tail = nullptr;
};

// Takes bytes of the device in ascending order, whole granules.
using DeviceSink = std::function<Result<>(uint64_t device_offset, Bytes bytes)>;

// Immutable; thread-safe.
class Layout {
 public:
  virtual ~Layout() = default;
  virtual uint64_t device_size() const = 0;  // a multiple of 4096
  virtual uint64_t granule() const = 0;      // what is proven as one: a power of two, 4 KiB .. 4 MiB
  // The fill that makes `wanted` (non-empty, inside the device) available: whole granules, and of those that the
  // fetched bytes complete anyway, the neighbours too.
  virtual Fill plan(ByteRange wanted) const = 0;

  // For who fetches a long run piece by piece. Where the piece `wanted` had better end, at wanted.end or a little
  // behind it (at most the device's end), so that plan_piece() of it and of the next one fetch little twice.
  virtual uint64_t piece_end(ByteRange wanted) const { return wanted.end; }
  // As plan(), but the fill ends with what `wanted` needs, which it estimates: when that was too little, finish() fails
  // with kCorrupt although the bytes are as they should be, and plan() gives a fill that is not.
  virtual Fill plan_piece(ByteRange wanted) const { return plan(wanted); }

  // The most device bytes that a decoder keeps back until they are proven.
  virtual uint64_t decoder_memory() const { return granule(); }

  // One fill being decoded while it arrives. Not thread-safe; outlives neither its layout nor its sink.
  class Decoder {
   public:
    virtual ~Decoder() = default;
    // The next bytes of fill.stored, cut anywhere. Hands out granules as they are complete; kCorrupt for what cannot be
    // decoded, or does not match a digest that covers it as it is stored. Not to be fed after an error.
    virtual Result<> feed(Bytes stored) = 0;
    // Every byte of fill.stored was fed: hands out what is left of fill.device, or kCorrupt.
    virtual Result<> finish() = 0;
  };
  // `fill` is what plan() made. What is handed out is to be proven before anybody reads it: by prove(), or by a cache
  // that has the leaves itself. A sink that finds it wrong fails with kCorrupt.
  virtual std::unique_ptr<Decoder> decoder(const Fill& fill, DeviceSink sink) const = 0;
  // Whole granules at `offset` of the device: kCorrupt unless they match their leaves. Where there are none the decoder
  // has proven what it hands out, or nobody can.
  virtual Result<> prove(uint64_t offset, Bytes granules) const { return (void)offset, (void)granules, Result<>(); }

  // What plan() may be asked, and decoder() given. Callers' mistakes end the process.
  void check_wanted(ByteRange wanted) const {
    HYDRANT_CHECK(!wanted.empty() && wanted.end <= device_size(), "plan() for a range outside the device");
  }
  void check_planned(const Fill& fill) const {
    HYDRANT_CHECK(fill.device.begin % granule() == 0 && !fill.device.empty() && fill.device.end <= device_size() &&
                      (fill.device.end % granule() == 0 || fill.device.end == device_size()),
                  "decoder() of a fill that plan() did not make");
  }
  // `wanted` by whole granules.
  ByteRange whole_granules(ByteRange wanted) const {
    const ByteRange device = align_outward(wanted, granule());
    return {device.begin, std::min(device.end, device_size())};
  }

  ByteRange granule_range(uint64_t index) const {
    return {index * granule(), std::min((index + 1) * granule(), device_size())};
  }

  // `stored`, exactly fill.stored, at once, and proven.
  Result<> decode(const Fill& fill, Bytes stored, const DeviceSink& sink) const {
    auto all = decoder(fill, [&](uint64_t offset, Bytes granules) -> Result<> {
      HYDRANT_TRY_VOID(prove(offset, granules));
      return sink(offset, granules);
    });
    HYDRANT_TRY_VOID(all->feed(stored));
    return all->finish();
  }
};

}  // namespace hydrant::image
